-- Health of an EmbeddingFineTune for Argo CD, in the layout of its resource_customizations.
-- Or put it into the ConfigMap argocd-cm under
--   resource.customizations.health.embedding-operator.dev_EmbeddingFineTune: |
-- Argo CD has no string library here.
local health = {status = "Progressing", message = "waiting for the operator to look at it"}
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready, stalled = conditions.Ready, conditions.Stalled
local looked_at = {Blocked = true, Degraded = true, Failed = true}  -- Failed is what 0.1 wrote for Blocked
if obj.spec ~= nil and obj.spec.suspend and not looked_at[obj.status.phase] then
  health.status = "Suspended"
  health.message = "spec.suspend is true"
elseif ready ~= nil and ready.status == "True" then
  health.status = "Healthy"
  health.message = ready.message
elseif (stalled ~= nil and stalled.status == "True") or looked_at[obj.status.phase]
    or (ready ~= nil and ready.status == "False") then
  -- Somebody has to look, whether or not it would go on by itself afterwards.
  health.status = "Degraded"
  local told = stalled or ready
  health.message = told ~= nil and told.message or "what was served is unavailable"
  local served = obj.status.served
  if served ~= nil and served.url ~= nil and obj.status.phase ~= "Degraded" then
    health.message = health.message .. " (revision " .. tostring(served.activeRevision) .. " goes on serving)"
  end
elseif ready ~= nil then
  health.message = ready.reason .. ": " .. ready.message
end
return health
