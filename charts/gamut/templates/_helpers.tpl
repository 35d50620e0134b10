{{- /* Labels of every object: (dict "root" $ "component" "ca"). */ -}}
{{- define "gamut.labels" -}}
{{ include "gamut.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "gamut.selector" -}}
app.kubernetes.io/name: gamut
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* An image: (dict "root" $ "name" "gamut"). */ -}}
{{- define "gamut.image" -}}
{{ .root.Values.image.registry }}/{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{- /* What every pod of the control plane has; it meets the restricted Pod Security Standard. */ -}}
{{- define "gamut.pod" -}}
serviceAccountName: gamut-{{ .component }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
nodeSelector:
  {{- merge (dict "kubernetes.io/os" "linux") .root.Values.nodeSelector | toYaml | nindent 2 }}
{{- with .root.Values.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
# Replicas on different nodes, where there are several.
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "gamut.selector" . | nindent 12 }}
{{- end -}}

{{- /* What every container of the control plane has. */ -}}
{{- define "gamut.container" -}}
image: {{ include "gamut.image" (dict "root" .root "name" "gamut") | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [{{ .component }}]
# What it says when it ends by itself is in the pod's status, where `kubectl describe` and `gamut check` show it.
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Answers as long as the process gets its turn at all: neither the API server nor a certificate nor much work fails it. A minute and a half of
silence does, which only a new start mends. */ -}}
{{- define "gamut.liveness" -}}
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}

{{- /* (dict "root" $ "component" "ca"). A pod that isn't ready may always go: keeping it would only keep its node from being drained. */ -}}
{{- define "gamut.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: gamut-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "gamut.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "gamut.selector" . | nindent 6 }}
{{- end -}}

{{- define "gamut.log" -}}
- {name: GAMUT_LOG, value: {{ printf "%s,kube_client=off" .Values.log.level | quote }}}
- {name: GAMUT_LOG_FORMAT, value: {{ .Values.log.format }}}
{{- end -}}

{{- /* Where the CA is, and what proves to it who this pod is: the environment, the mounts and the volumes. */ -}}
{{- define "gamut.identity.env" -}}
- {name: GAMUT_TRUST_DOMAIN, value: {{ .Values.trustDomain | quote }}}
- {name: GAMUT_CA_ADDRESS, value: "gamut-ca.{{ .Release.Namespace }}.svc:15010"}
{{- end -}}

{{- define "gamut.identity.mounts" -}}
- {name: token, mountPath: /var/run/secrets/gamut.mesh/token, readOnly: true}
- {name: roots, mountPath: /var/run/secrets/gamut.mesh/roots, readOnly: true}
{{- end -}}

{{- define "gamut.identity.volumes" -}}
- name: token
  projected:
    sources:
    - serviceAccountToken: {audience: gamut.mesh/ca, expirationSeconds: 3600, path: token}
# The CA publishes them; until then the pod waits.
- name: roots
  configMap:
    name: gamut-trust-bundle
    items: [{key: root.pem, path: root.pem}]
{{- end -}}
