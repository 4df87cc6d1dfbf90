-- Health of an EmbeddingFineTune for Argo CD, in the layout of its resource_customizations.
-- Or put it into the ConfigMap argocd-cm under
--   resource.customizations.health.embedding-operator.dev_EmbeddingFineTune: |
local health = {status = "Progressing", message = "waiting for the operator to look at it"}
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready, stalled = conditions.Ready, conditions.Stalled
if obj.spec ~= nil and obj.spec.suspend then
  health.status = "Suspended"
  health.message = "spec.suspend is true"
elseif stalled ~= nil and stalled.status == "True" then
  health.status = "Degraded"
  health.message = stalled.message
elseif ready ~= nil and ready.status == "True" then
  health.status = "Healthy"
  health.message = ready.message
elseif obj.status.phase == "Degraded" or obj.status.phase == "Failed" then
  -- The server is down, and may come back without an edit.
  health.status = "Degraded"
  health.message = ready ~= nil and ready.message or "what was served is unavailable"
elseif ready ~= nil then
  health.message = ready.reason .. ": " .. ready.message
end
return health
