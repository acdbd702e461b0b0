-- Health of a RayJob for Argo CD: how the job ended, not whether its cluster stands; but where it cannot begin, why.
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
local deployment = status.jobDeploymentStatus or ""
local message = status.message or ""
if (status.reason or "") ~= "" then
  message = status.reason .. ": " .. message
end

-- A job that failed may be tried again on another cluster: KubeRay says so in the other status, a little later.
if deployment == "Failed" or deployment == "ValidationFailed" or deployment == "Complete" and status.jobStatus == "FAILED" then
  return {status = "Degraded", message = message}
end
-- To suspend it KubeRay stops the job.
if deployment == "Suspended" or deployment == "Suspending" then
  return {status = "Suspended", message = "suspended: it has no cluster"}
end
if status.jobStatus == "STOPPED" then
  return {status = "Degraded", message = "somebody stopped it. " .. message}
end
if deployment == "Complete" then
  return {status = "Healthy", message = ""}
end
if deployment == "Initializing" then
  for _, found in ipairs((status.rayClusterStatus or {}).conditions or {}) do
    local broken = found.type == "HeadPodReady" and found.status == "False" and BROKEN[found.reason]
    if broken or found.type == "ReplicaFailure" and found.status == "True" then
      return {status = "Degraded", message = "its cluster does not come up: " .. (found.reason or "") .. ": " .. (found.message or "")}
    end
  end
end
return {status = "Progressing", message = deployment == "" and "KubeRay has not seen it yet" or deployment}
