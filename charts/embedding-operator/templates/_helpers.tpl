{{- define "operator.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 55 characters: "-metrics" is put behind it. */}}
{{- define "operator.fullname" -}}
{{- $name := include "operator.name" . }}
{{- $joined := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $joined | trunc 55 | trimSuffix "-" }}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: {{ include "operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "operator.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "operator.fullname" .) }}
{{- end }}

{{/* An image of the project: (list context repository tag digest). Every reference of the chart that is not given in full is
made here, so that one tag moves all of them. Without a tag of its own it has that of all images. */}}
{{- define "operator.reference" -}}
{{- $context := index . 0 }}{{ $tag := index . 2 | default $context.Values.tag | default $context.Chart.AppVersion -}}
{{- with $context.Values.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ index . 1 -}}
{{- with index . 3 }}@{{ . }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "operator.image" -}}
{{- with .Values.image }}{{ include "operator.reference" (list $ .repository .tag .digest) }}{{ end }}
{{- end }}

{{/* The image of a stage: (list context name). */}}
{{- define "operator.stageImage" -}}
{{- $context := index . 0 }}{{ $name := index . 1 -}}
{{- index $context.Values.stageImages $name | default (include "operator.reference" (list $context (printf "embedding-operator/%s" $name) "" "")) }}
{{- end }}

{{/* "true" where the platform gives pods their user and groups. */}}
{{- define "operator.openshift" -}}
{{- $said := .Values.openshift | toString }}
{{- eq $said "auto" | ternary (.Capabilities.APIVersions.Has "security.openshift.io/v1") (eq $said "true") }}
{{- end }}

{{/* Exactly what the operator does: no verb on nodes, none on Secrets unless preflight.secrets, none that changes or enters pods. */}}
{{- define "operator.rules" -}}
- apiGroups: [embedding-operator.dev]
  resources: [embeddingfinetunes]
  verbs: [get, list, watch]
- apiGroups: [embedding-operator.dev]
  resources: [embeddingfinetunes/status]
  verbs: [update]
# Owner references that block deletion need this where OwnerReferencesPermissionEnforcement is on (OpenShift).
- apiGroups: [embedding-operator.dev]
  resources: [embeddingfinetunes/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# Backend nimService. Never watched: where NVIDIA's NIM Operator is not installed there is no such kind.
- apiGroups: [apps.nvidia.com]
  resources: [nimservices]
  verbs: [get, list, create, patch, delete]
# What Kueue says of the Jobs in its queue; patch: spec.suspend makes what waits or runs there inactive.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# Never deleted: claims go with their resource, by owner reference.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
# The contract of what serves, and what each revision was made of. Never listed: each is known by its name.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
# Create: a dry run, at the start of a revision, tells what a later stage's pod would be refused for; and one pod tries the
# images of later stages. Delete: that one, also after preflight.images was switched off.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, create, delete]
{{- if .Values.preflight.secrets }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end }}
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# List: a pod that waits for a missing Secret says so only in Events.
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- end }}
