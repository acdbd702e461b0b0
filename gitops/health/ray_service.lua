-- Health of a RayService for Argo CD, from what KubeRay 1.7 was seen to write. `Ready=True` says only that some pod takes
-- requests: it stays True while an application fails beside the old one, while a new cluster does not come up, and while
-- KubeRay cannot read the change at all. Argo CD gives scripts no string library, and of `os` the time.

local os = require("os")

-- How long a cluster may take to come up: a node must be there, and an image of gigabytes on it. Where it can't, the
-- status stays as it was when the cluster was made: KubeRay writes it anew only when the applications change.
local COMES_UP_WITHIN_MINUTES = 15
-- With each step in which requests move KubeRay writes the status; longer than this between two is no step.
local MOVES_WITHIN_MINUTES = 60
-- KubeRay moves requests when the applications run, and a pod of the new cluster is ready a little later.
local READY_WITHIN_MINUTES = 1

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

-- The deployment that watches for drift, and what Serve says of an application of which only that fails.
local MONITOR = "Monitor"
local ONLY_THE_MONITOR = {
  ["The deployments ['Monitor'] are UNHEALTHY."] = true,
  ["Failed to update the deployments ['Monitor']."] = true,
}
local ANSWERING = {HEALTHY = true, UPSCALING = true, DOWNSCALING = true}

local function health(status, message)
  return {status = status, message = message}
end

local function condition(status, name)
  for _, found in ipairs(status.conditions or {}) do
    if found.type == name then
      return found
    end
  end
  return {}
end

-- The names of a table's entries in the order of the alphabet: the same status must give the same message.
local function names(entries)
  local found = {}
  for name in pairs(entries or {}) do
    table.insert(found, name)
  end
  table.sort(found)
  return found
end

-- Whether a time is known and further back than so many minutes. Times in UTC sort as their texts do. Argo CD's os.date
-- forgets the "!" where it is given a time, hence the difference.
local function is_past(time, minutes)
  local zone = os.time() - os.time(os.date("!*t"))
  return time ~= nil and time < os.date("%Y-%m-%dT%H:%M:%SZ", os.time() - zone - 60 * minutes)
end

-- What keeps a cluster's head from starting, or nil.
local function broken_head(service)
  local head = condition(service.rayClusterStatus or {}, "HeadPodReady")
  if head.status == "False" and BROKEN[head.reason] then
    return head.reason .. ": " .. (head.message or "")
  end
end

-- Serve's word for an application whose monitor does not count, as gitops.health.serving_status has it.
local function serving_status(app)
  local monitor = (app.serveDeploymentStatuses or {})[MONITOR]
  if monitor == nil or monitor.status == "HEALTHY" then
    return app.status
  end
  local others, answering, updating = 0, true, false
  for name, deployment in pairs(app.serveDeploymentStatuses) do
    if name ~= MONITOR then
      others = others + 1
      answering = answering and ANSWERING[deployment.status] == true
      updating = updating or deployment.status == "UPDATING"
    end
  end
  local only_it_fails = ONLY_THE_MONITOR[app.message or ""] and app.status ~= "RUNNING"
  if others == 0 or not (only_it_fails or app.status == "DEPLOYING") then
    return app.status
  end
  return answering and "RUNNING" or updating and "DEPLOYING" or app.status
end

-- The applications of a cluster: what failed, and what is under way, nil where there is no such; and whether Serve tells
-- of something that keeps the latter from its end, as of replicas that do not start; and what is not watched for drift,
-- where the monitor does not count.
local function applications(service, monitor_counts)
  local failed, busy, unwatched
  local hindered = false
  for _, name in ipairs(names(service.applicationStatuses)) do
    local app = service.applicationStatuses[name]
    local said = name .. " is " .. (app.status or "not started")
    if app.message and app.message ~= "" then
      said = said .. ": " .. app.message
    end
    -- Why replicas do not start Serve says of their deployment only.
    local unwell, told = false, false
    for _, deployment in ipairs(names(app.serveDeploymentStatuses)) do
      local found = app.serveDeploymentStatuses[deployment]
      local counts = monitor_counts or deployment ~= MONITOR
      unwell = unwell or counts and (found.status == "UNHEALTHY" or found.status == "DEPLOY_FAILED")
      if found.message and found.message ~= "" then
        told = true
        said = said .. "; " .. deployment .. " is " .. (found.status or "not started") .. ": " .. found.message
      end
    end
    local serving = monitor_counts and app.status or serving_status(app)
    if unwell or serving == "DEPLOY_FAILED" or serving == "UNHEALTHY" then
      failed = failed or said
    elseif serving == "RUNNING" and app.status ~= "RUNNING" then
      unwatched = unwatched or "nothing watches " .. name .. " for drift: " .. said
    elseif serving ~= "RUNNING" then
      busy = busy or said
      hindered = hindered or told
    end
  end
  return failed, busy, hindered, unwatched
end

local function judge()
  local status = obj.status
  if status == nil or status.conditions == nil then
    return health("Progressing", "KubeRay has not seen it yet")
  end
  if condition(status, "Suspended").status == "True" or condition(status, "Suspending").status == "True" then
    return health("Suspended", "suspended: it has no cluster")
  end

  local ready = condition(status, "Ready")
  local seen, wanted = status.observedGeneration or 0, obj.metadata.generation or 0
  -- The reason stays where another version was taken since, until that is ready.
  if ready.reason == "ValidationFailed" and seen < wanted then
    return health("Degraded", "KubeRay refuses it, and goes on with what was there: " .. (ready.message or ""))
  end
  if ready.reason == "InitializingTimeout" then
    return health("Degraded", "for good: delete the RayService, and it is made anew. " .. (ready.message or ""))
  end

  local active, pending = status.activeServiceStatus or {}, status.pendingServiceStatus or {}
  local failed, busy, _, unwatched = applications(active, false)
  if failed then
    return health("Degraded", failed)
  end

  if (pending.rayClusterName or "") ~= "" then
    local coming = pending.rayClusterName
    local failed, busy, hindered = applications(pending, true)  -- KubeRay moves no request before all of it runs
    local failing = broken_head(pending) or failed
    local old = ready.status == "True" and "; the old cluster answers" or ""
    -- What is wrong with a cluster that goes is why it goes.
    local going = condition(status, "RollbackInProgress").status == "True"
    if going and ready.status == "True" and not is_past(status.lastUpdateTime, MOVES_WITHIN_MINUTES) then
      return health("Progressing", "requests go back to the cluster before " .. coming)
    end
    if failing then
      return health("Degraded", "the new cluster " .. coming .. " does not come up: " .. failing .. old)
    end
    if ready.reason == "ZeroServeEndpoints" and is_past(ready.lastTransitionTime, READY_WITHIN_MINUTES) then
      return health("Degraded", "nothing answers while the new cluster " .. coming .. " comes up: " .. (ready.message or ""))
    end
    local whole = not busy and next(pending.applicationStatuses or {}) ~= nil
    if whole or (pending.trafficRoutedPercent or 0) > 0 then
      if is_past(status.lastUpdateTime, MOVES_WITHIN_MINUTES) then
        return health("Degraded", "for more than " .. MOVES_WITHIN_MINUTES .. " minutes no requests moved to the new cluster "
          .. coming .. (busy and " (" .. busy .. ")" or "") .. ": the RayService's events say why" .. old)
      end
      return health("Progressing", "requests move to the new cluster " .. coming)
    end
    -- KubeRay writes the status anew where a cluster gets its name, and with each attempt of replicas that do not start;
    -- those wait since the cluster's head is ready.
    local begun = status.lastUpdateTime
    if hindered then
      local head, upgrade = condition(pending.rayClusterStatus or {}, "HeadPodReady"), condition(status, "UpgradeInProgress")
      begun = head.lastTransitionTime or upgrade.lastTransitionTime or begun
    end
    if is_past(begun, COMES_UP_WITHIN_MINUTES) then
      return health("Degraded", "the new cluster " .. coming .. " did not come up within " .. COMES_UP_WITHIN_MINUTES
        .. " minutes (" .. (busy or "no application yet") .. "): the RayCluster and its pods say why" .. old)
    end
    return health("Progressing", "the new cluster " .. coming .. " starts" .. (hindered and " (" .. busy .. ")" or "") .. old)
  end

  if seen < wanted then
    return health("Progressing", "KubeRay is at generation " .. tostring(seen) .. " of " .. tostring(wanted)
      .. "; if it stays there, it cannot read serveConfigV2 or does not reach Ray: its events say which")
  end
  if ready.status ~= "True" then
    if ready.reason == "ZeroServeEndpoints" then
      local moved = condition(status, "UpgradeInProgress").lastTransitionTime
      if moved ~= nil and not is_past(moved, READY_WITHIN_MINUTES) then
        return health("Progressing", "requests have just moved: " .. (ready.message or ""))
      end
      return health("Degraded", "nothing answers: " .. (ready.message or ""))
    end
    if ready.reason == "Initializing" and is_past(status.lastUpdateTime, COMES_UP_WITHIN_MINUTES) then
      return health("Degraded", "it did not come up within " .. COMES_UP_WITHIN_MINUTES .. " minutes: " .. (ready.message or ""))
    end
    return health("Progressing", ready.message or "it starts")
  end
  if busy then
    return health("Progressing", busy)
  end
  if next(active.applicationStatuses or {}) == nil then
    return health("Progressing", "KubeRay does not know the applications: Ray's head does not answer it")
  end
  return health("Healthy", unwatched or "")
end

return judge()
