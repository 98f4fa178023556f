{{- define "taxon.selector" -}}
app.kubernetes.io/name: taxon
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "taxon.labels" -}}
{{ include "taxon.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
