-- Health of a RayCluster for Argo CD.
local BROKEN = {
  CrashLoopBackOff = true,
  CreateContainerConfigError = true,
  CreateContainerError = true,
  ErrImagePull = true,
  Error = true,
  ImagePullBackOff = true,
  InvalidImageName = true,
  OOMKilled = true,
}

local status = obj.status or {}
local conditions = {}
for _, found in ipairs(status.conditions or {}) do
  conditions[found.type] = found
end

local function is(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

if is("RayClusterSuspended") or is("RayClusterSuspending") then
  return {status = "Suspended", message = "suspended: it has no pods"}
end
if is("ReplicaFailure") then
  local found = conditions.ReplicaFailure
  return {status = "Degraded", message = (found.reason or "") .. ": " .. (found.message or "")}
end
local head = conditions.HeadPodReady
if head ~= nil and head.status == "False" and BROKEN[head.reason] then
  return {status = "Degraded", message = head.reason .. ": " .. (head.message or "")}
end
if (status.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return {status = "Progressing", message = "KubeRay has not taken the change yet"}
end
if is("HeadPodReady") and is("RayClusterProvisioned") then
  -- That it is provisioned stays true when its workers are gone.
  if (status.desiredWorkerReplicas or 0) > 0 and (status.readyWorkerReplicas or 0) == 0 then
    return {status = "Progressing", message = "none of " .. tostring(status.desiredWorkerReplicas) .. " workers is ready"}
  end
  return {status = "Healthy", message = ""}
end
return {status = "Progressing", message = head ~= nil and head.message or "KubeRay has not seen it yet"}
