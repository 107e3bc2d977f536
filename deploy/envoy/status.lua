-- Adapter lane, REST clients. A node answers an engine's error as HttpBody, with the status in initial metadata; and when
-- it refuses the call itself (so that Envoy may try the next replica), the transcoder writes {"code","message"}, which no
-- SDK reads. header_mutation may not touch ":status", hence Lua.

local HEADER = "x-http-status"

local KINDS = {
  ["429"] = {status = "503", code = "engine_overloaded", openai = "server_error", anthropic = "overloaded_error",
             message = "Every replica that may serve this request is at its limit. Retry after a second."},
  ["503"] = {status = "503", code = "no_replica_available", openai = "server_error", anthropic = "overloaded_error",
             message = "No replica that may serve this request answered. Retry after a second."},
  ["504"] = {status = "504", code = "engine_timeout", openai = "server_error", anthropic = "timeout_error",
             message = "The engine did not answer in time."},
}
local INTERNAL = {status = "500", code = "internal", openai = "server_error", anthropic = "api_error",
                  message = "The node could not serve this request."}

local FORMS = {
  openai = '{"error":{"message":"%s","type":"%s","param":null,"code":"%s"}}',
  anthropic = '{"type":"error","error":{"message":"%s","type":"%s"},"request_id":"%s"}',
}

-- What the transcoder writes begins so; Envoy's own replies are in the client's dialect already.
local TRANSCODED = '{"code":'

local FILTER = "enginehouse.status"

local function own_metadata(handle) return handle:streamInfo():dynamicMetadata() end

function envoy_on_request(handle)
  own_metadata(handle):set(FILTER, "request_id", handle:headers():get("x-request-id") or "")
end

local function replace_body(handle)
  local body = handle:body(true)
  if body:length() < #TRANSCODED or body:getBytes(0, #TRANSCODED) ~= TRANSCODED then return end
  local status = handle:headers():get(":status")
  local kind = KINDS[status] or INTERNAL
  local dialect = handle:metadata():get("dialect")
  local last = dialect == "anthropic" and own_metadata(handle):get(FILTER)["request_id"] or kind.code
  body:setBytes(string.format(FORMS[dialect], kind.message, kind[dialect], last))
  handle:headers():replace(":status", kind.status)
  if kind ~= INTERNAL then handle:headers():replace("retry-after", "1") end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if string.find(headers:get("content-type") or "", "application/grpc", 1, true) == 1 then return end
  headers:remove("grpc-accept-encoding")
  local status = headers:get(HEADER)
  if not status then
    if tonumber(headers:get(":status")) >= 400 then replace_body(handle) end
    return
  end
  headers:remove(HEADER)
  if string.match(status, "^[2345]%d%d$") then
    headers:replace(":status", status)
  else
    handle:logErr("x-http-status is no HTTP status")
    headers:replace(":status", "502")
  end
end
