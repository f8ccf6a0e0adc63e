{{/* What the name of every object begins with, so that two releases in one namespace differ. */}}
{{- define "gantry.name" -}}
{{- ternary .Release.Name (printf "%s-gantry" .Release.Name) (contains "gantry" .Release.Name) | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Labels of an object: (list . "component") */}}
{{- define "gantry.labels" -}}
{{- $root := index . 0 -}}
{{ include "gantry.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: gantry
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selects a component's pods, for ever: a Deployment's selector can't change. */}}
{{- define "gantry.selector" -}}
app.kubernetes.io/name: gantry-{{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{/* An image by its name below `images`: (list . "gantry") */}}
{{- define "gantry.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* `host:port` with `;` between. The chart's own have one name, which leads to all of them: brokers register at each, and follow their number. */}}
{{- define "gantry.nameServers" -}}
{{- $addresses := .Values.nameServers.external -}}
{{- if .Values.nameServers.enabled }}
{{- $addresses = append $addresses (printf "%s-nameserver.%s.svc:9876" (include "gantry.name" .) .Release.Namespace) }}
{{- end }}
{{- join ";" $addresses }}
{{- end }}

{{/* Where the pods of a component may run: (list . "component" .Values.component) */}}
{{- define "gantry.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
affinity:
{{- if $values.affinity }}
  {{- toYaml $values.affinity | nindent 2 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "gantry.selector" . | nindent 14 }}
{{- end }}
{{- end }}

{{/* What the Pod Security Standard `restricted` asks of a pod. */}}
{{- define "gantry.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* And of a container; and nothing of the image can be written. */}}
{{- define "gantry.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Which namespaces a monitor looks into: those that the operator watches. */}}
{{- define "gantry.watched" -}}
namespaceSelector:
{{- if .Values.operator.watchNamespaces }}
  matchNames: {{- toYaml .Values.operator.watchNamespaces | nindent 4 }}
{{- else }}
  any: true
{{- end }}
{{- end }}

{{/* How often a monitor's targets are asked; Prometheus' own habit where nothing is said. */}}
{{- define "gantry.scrape" -}}
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- end }}
