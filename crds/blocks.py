"""Blocks of the CRD that stand in it several times: how a pod is run, where files come from, a Secret. Text as it is."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from typing import Final

from embedding_operator.resource.images import FORM, REFERENCE

_QUANTITY: Final = "^[0-9]+([.][0-9]+)?([KMGTPE]i|[numkMGTPE]|[eE][0-9]+)?$"


def pod(server_variables: Iterable[str]) -> Iterator[str]:
    """What may be said about a stage's pod: an allow-list. `server_variables`: names that the operator sets."""
    yield "image:"
    yield "  type: string"
    yield "  minLength: 1"
    yield "  maxLength: 512"
    says = "Image of this stage, best by digest: it is part of what identifies the work. The operator's default when absent; backends nim, nimService and vllm have none."
    yield f'  description: "{says}"'
    yield from _reference("  ")
    yield from _text(
        """
        resources:
          type: object
          description: "Requests and limits of the stage's container. Say nvidia.com/gpu: 0 in limits to run without a GPU."
          properties:
        """
    )
    for kind, says in (
        ("requests", "What the scheduler keeps free for it, such as memory: 20Gi, cpu: 500m."),
        ("limits", "What it may use at most, such as memory: 20Gi (GB is no unit), cpu: 4, nvidia.com/gpu: 1."),
    ):
        yield from _text(
            f"""
                {kind}:
                  type: object
                  maxProperties: 16
                  description: "{says}"
                  additionalProperties:
                    x-kubernetes-int-or-string: true
                    anyOf: [{{type: integer}}, {{type: string}}]
                    minimum: 0
                    maxLength: 32
                    x-kubernetes-validations:
                      - rule: "type(self) == int || self.matches('{_QUANTITY}')"
                        message: "must be a quantity, such as 20Gi, 500m or 4: GB is no unit"
            """,
            indent=4,
        )
    yield from _text(
        """
        nodeSelector:
          type: object
          maxProperties: 32
          description: "Labels that a node must have."
          additionalProperties: {type: string, maxLength: 63}
        tolerations:
          type: array
          maxItems: 32
          description: "Taints of nodes that do not keep the pod away."
          items:
            type: object
            properties:
              key: {type: string, maxLength: 316, description: "The taint's key; every key when absent, with operator Exists."}
              operator: {type: string, enum: [Exists, Equal], description: "Equal compares the value, and is meant when absent."}
              value: {type: string, maxLength: 63, description: "The taint's value."}
              effect: {type: string, enum: [NoSchedule, PreferNoSchedule, NoExecute], description: "The taint's effect; every effect when absent."}
              tolerationSeconds: {type: integer, format: int64, minimum: 0, description: "How long a taint NoExecute is tolerated, seconds; for ever when absent."}
        priorityClassName: {type: string, maxLength: 253, description: "PriorityClass of the pod."}
        runtimeClassName: {type: string, maxLength: 253, description: "RuntimeClass of the pod."}
        podLabels:
          type: object
          maxProperties: 32
          description: "Labels of the pod, beside the operator's own, which cannot be given."
          additionalProperties: {type: string, maxLength: 63}
        podAnnotations:
          type: object
          maxProperties: 32
          description: "Annotations of the pod, beside those of the operator and of Kubernetes, which cannot be given."
          additionalProperties: {type: string, maxLength: 4096}
        env:
          type: array
          maxItems: 64
          description: "Literal environment variables; part of the stage's fingerprint."
          x-kubernetes-list-type: map
          x-kubernetes-list-map-keys: [name]
          items:
            type: object
            required: [name]
            properties:
              name:
                type: string
                maxLength: 253
                description: "The variable's name."
                x-kubernetes-validations:
                  - {rule: "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')", message: "must be an environment variable's name"}
                  - {rule: "!self.startsWith('EFT_')", message: "names that start with EFT_ belong to the operator"}
        """
    )
    names = ", ".join(f"'{name}'" for name in sorted(server_variables))
    if names:
        yield "          - rule: >-"
        yield from _folded(f"!(self in [{names}])", "              ")
        yield '            message: "the operator sets this variable of the server; remove it"'
    yield '      value: {type: string, maxLength: 4096, description: "The variable\'s value, as it stands here; empty when absent."}'


def _folded(text: str, margin: str) -> Iterator[str]:
    """Lines of a folded scalar."""
    for line in textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False):
        yield f"{margin}{line}"


def source(kind: str) -> Iterator[str]:
    """Where files come from."""
    for line in _text(_SOURCES[kind]):
        yield from _reference(line.removesuffix("REFERENCE")) if line.endswith("REFERENCE") else [line]
    if kind == "configMap":
        return
    yield "      x-kubernetes-validations:"
    yield "        - {rule: \"!self.matches('(^|/)[.][.](/|$)')\", message: \"must not contain '..'\"}"
    if kind == "image":
        message = "must name a folder of the image, such as /model: with the root come /proc, /sys and /dev"
        rule = "!self.matches('^(/|[.]/)*([.]?|(proc|sys|dev)(/.*)?)$')"
        yield f'        - {{rule: "{rule}", message: "{message}"}}'
        yield '    pullPolicy: {type: string, enum: [Always, IfNotPresent, Never], description: "IfNotPresent when absent."}'


def _reference(indent: str) -> Iterator[str]:
    """What an image has to look like: a typo is refused at once, not when its stage comes."""
    yield f"{indent}x-kubernetes-validations:"
    yield f"{indent}  - rule: {json.dumps(f'self.matches({REFERENCE!r})')}"
    yield f'{indent}    message: "must be {FORM}"'


def secret(says: str) -> Iterator[str]:
    """A key of a Secret in the namespace of the resource."""
    yield from _text(
        f"""
        type: object
        description: "{says}"
        required: [name, key]
        properties:
          name: {{type: string, minLength: 1, maxLength: 253, description: "Name of the Secret, in the namespace of the resource."}}
          key: {{type: string, minLength: 1, maxLength: 253, description: "Key in the Secret."}}
        """
    )


def bundle(says: str) -> Iterator[str]:
    """Certificates in a ConfigMap; `says`: a further sentence, or nothing."""
    further = f" {says}" if says else ""
    yield from _text(
        f"""
        caBundle:
          type: object
          description: "Certificates of authorities (PEM) that are trusted beside those of the image.{further} Since 0.2."
          required: [name]
          properties:
            name: {{type: string, minLength: 1, maxLength: 253, description: "Name of the ConfigMap, in the namespace of the resource."}}
            key: {{type: string, minLength: 1, maxLength: 253, description: "Key in the ConfigMap; ca.crt when absent."}}
        """
    )


_BESIDE: Final = {
    "judge": "Another model that scores the questions; the same one when absent. Since 0.2.",
    "embedding": "A model of embeddings, which finds questions that ask the same; none are sought when absent.",
}


def endpoint(which: str) -> Iterator[str]:
    """An OpenAI-compatible endpoint, and the other models that may be named `beside` it: words of `_BESIDE`."""
    yield from _an_endpoint("For example http://llm.ai.svc:8000/v1.", "")
    for name in which.split():
        yield f"{name}:"
        yield "  type: object"
        yield f'  description: "{_BESIDE[name]}"'
        yield "  required: [model]"
        yield "  properties:"
        lines = _an_endpoint("Its address; the same one when absent.", f" Only with {name}.baseURL.")
        yield from (f"    {line}" for line in lines)


def _an_endpoint(address: str, only: str) -> Iterator[str]:
    yield from _text(
        f"""
        baseURL:
          type: string
          maxLength: 512
          description: "{address} /chat/completions is put behind its path, before its query."
          x-kubernetes-validations:
            - {{rule: "self.matches('^https?://[^[:space:]]+$')", message: "must start with http:// or https:// and hold no space, such as http://llm.ai.svc:8000/v1"}}
            - {{rule: "!self.matches('^https?://[^/?#]*@')", message: "must not hold a user or a password; put a key into the Secret of apiKeySecretRef"}}
        model: {{type: string, minLength: 1, maxLength: 253, description: "The model's name at the endpoint."}}
        apiKeySecretRef:
        """
    )
    yield from (f"  {line}" for line in secret(f"Key of the endpoint; none is sent when absent.{only}"))
    yield from bundle(only.strip())
    yield from _text(
        """
        parameters:
          type: object
          maxProperties: 32
          x-kubernetes-preserve-unknown-fields: true
          description: "Parameters of each request, beside the stage's own (temperature, seed, response_format) or in their place; such as max_tokens: 8192. Since 0.2."
        omitParameters:
          type: array
          maxItems: 32
          description: "Parameters that are not sent; what the endpoint refuses is left out by itself. Since 0.2."
          x-kubernetes-list-type: set
          items: {type: string, minLength: 1, maxLength: 64}
        """
    )


def _text(block: str, indent: int = 0) -> Iterator[str]:
    """The lines of a text without their common margin."""
    lines = [line for line in block.splitlines() if line.strip()]
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    return (" " * indent + line[margin:] for line in lines)


_SOURCES: Final = {
    "pvc": """
        pvc:
          type: object
          description: "A PersistentVolumeClaim in the namespace of the resource; it is mounted read-only."
          required: [claimName]
          properties:
            claimName: {type: string, minLength: 1, maxLength: 253, description: "Name of the claim."}
            path:
              type: string
              maxLength: 512
              description: "Folder in the volume; its root when absent."
        """,
    "image": """
        image:
          type: object
          description: "An image that carries the files; it needs no shell."
          required: [reference, path]
          properties:
            reference:
              type: string
              minLength: 1
              maxLength: 512
              description: "The image, with a tag or a digest."
              REFERENCE
            path:
              type: string
              minLength: 1
              maxLength: 512
              description: "Folder in the image, not its root."
        """,
    "configMap": """
        configMap:
          type: object
          description: "A ConfigMap in the namespace of the resource: every key is a file."
          required: [name]
          properties:
            name: {type: string, minLength: 1, maxLength: 253, description: "Name of the ConfigMap."}
        """,
}
