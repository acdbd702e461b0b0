-- Health of an Application inside another one: Argo CD leaves it out by default, and without it sync waves do not wait
-- for the operators. What is there may be healthy while the rest is not there yet: not before the sync has ended.
local status = obj.status or {}
local found = status.health or {}
local syncing = obj.operation ~= nil or (status.operationState or {}).phase == "Running"
if found.status == "Healthy" and syncing then
  return {status = "Progressing", message = "it is being synced"}
end
return {status = found.status or "Progressing", message = found.message or ""}
