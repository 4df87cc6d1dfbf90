{{- define "operator.labels" -}}
app.kubernetes.io/name: embedding-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "operator.selector" -}}
app.kubernetes.io/name: embedding-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "operator.serviceAccount" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{- define "operator.prefix" -}}
{{- with .Values.registry }}{{ trimSuffix "/" . }}/{{ end }}
{{- end }}

{{/* The image of a stage: (list context name). */}}
{{- define "operator.stageImage" -}}
{{- $context := index . 0 }}{{ $name := index . 1 -}}
{{- index $context.Values.stageImages $name | default (printf "%sembedding-operator/%s:%s" (include "operator.prefix" $context) $name $context.Chart.AppVersion) }}
{{- end }}

{{/* Exactly what the operator does; no verb on Secrets, nodes, or pods' contents. */}}
{{- define "operator.rules" -}}
- apiGroups: [embedding-operator.dev]
  resources: [embeddingfinetunes]
  verbs: [get, list, watch]
- apiGroups: [embedding-operator.dev]
  resources: [embeddingfinetunes/status]
  verbs: [update]
# Owner references that block deletion need this where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [embedding-operator.dev]
  resources: [embeddingfinetunes/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- end }}
