-- Health of an Application inside another one: Argo CD leaves it out by default, and without it sync waves do not wait
-- for the operators.
local found = obj.status ~= nil and obj.status.health or {}
return {status = found.status or "Progressing", message = found.message or ""}
