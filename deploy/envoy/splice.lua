-- Applies the router's splices to the buffered request body: "offset:length:hex(text)" joined by ",", ascending, not
-- overlapping, offsets in bytes. Whatever does not fit is answered 500: a request never goes on half rewritten.

local HEADER = "x-enginehouse-internal-splices"
local DIGITS_MAX = 10

local function unhex(text)
  return (string.gsub(text, "%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

-- The body with the splices applied, or nil and what is wrong with them.
local function splice(body, splices)
  local pieces, position = {}, 0
  for item in string.gmatch(splices .. ",", "([^,]*),") do
    local offset, length, text = string.match(item, "^(%d+):(%d+):(%x*)$")
    if not offset or #offset > DIGITS_MAX or #length > DIGITS_MAX or #text % 2 == 1 then
      return nil, "malformed"
    end
    offset, length = tonumber(offset), tonumber(length)
    if offset < position or offset + length > #body then
      return nil, "out of range"
    end
    pieces[#pieces + 1] = string.sub(body, position + 1, offset)
    pieces[#pieces + 1] = unhex(text)
    position = offset + length
  end
  pieces[#pieces + 1] = string.sub(body, position + 1)
  return table.concat(pieces)
end

function envoy_on_request(handle)
  local splices = handle:headers():get(HEADER)
  if not splices then return end
  handle:headers():remove(HEADER)
  local buffer = handle:body()
  local body, wrong = nil, "without a body"
  if buffer then
    body, wrong = splice(buffer:getBytes(0, buffer:length()), splices)
  end
  if not body then
    handle:logErr("splices are " .. wrong)
    handle:respond({[":status"] = "500"}, "")
    return
  end
  buffer:setBytes(body)
end
