-- Direct lane: keeps the last usage that a stream of server-sent events has told, as OpenAI, Anthropic and llama.cpp spell
-- it, so that the access log has it however the stream ends.
-- Not by Envoy's own sse_to_metadata: 1.40 dies (SIGSEGV) of an event whose data is a bare number, string, true or null.
-- No JSON is parsed. In JSON text a key that follows "{" or "," cannot be inside a string: there its quotes have
-- backslashes.

local NAMESPACE = "enginehouse.usage"
-- A longer line is passed over: usage is told in short ones.
local LINE_BYTES_MAX = 1048576
-- What a double holds exactly.
local DIGITS_MAX = 15

local USAGE = {
  prompt_tokens = "input", input_tokens = "input",
  cached_tokens = "cached_input", cache_read_input_tokens = "cached_input",
  completion_tokens = "output", output_tokens = "output",
}
local TIMINGS = {prompt_n = "timing_prompt", cache_n = "timing_cached", predicted_n = "timing_output"}

local function keep(handle, text, member, names)
  if not string.find(text, '"' .. member .. '"', 1, true) then return end
  for object in string.gmatch(text, '[,{]%s*"' .. member .. '"%s*:%s*(%b{})') do
    for key, number in string.gmatch(object, '[,{]%s*"([%w_]+)"%s*:%s*(%d+)') do
      if names[key] and #number <= DIGITS_MAX then
        handle:streamInfo():dynamicMetadata():set(NAMESPACE, names[key], tonumber(number))
      end
    end
  end
end

function envoy_on_response(handle)
  if string.find(handle:headers():get("content-type") or "", "text/event-stream", 1, true) ~= 1 then return end
  local rest = ""
  for chunk in handle:bodyChunks() do
    local text = rest .. chunk:getBytes(0, chunk:length())
    local complete = string.match(text, "^.*\n")
    if complete then
      keep(handle, complete, "usage", USAGE)
      keep(handle, complete, "timings", TIMINGS)
      rest = string.sub(text, #complete + 1)
    else
      rest = text
    end
    if #rest > LINE_BYTES_MAX then rest = "" end
  end
end
