-- Return the activations with an awaiting status in some ranges, without reading the others.
-- KEYS: activations, awaiting. ARGV: for each range the beginning of its members, before the path, and the range's ends.
-- Returns paths and activations by turns.

local found, seen = {}, {}
for place = 1, #ARGV, 3 do
  for _, member in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], ARGV[place + 1], ARGV[place + 2])) do
    local path = string.sub(member, #ARGV[place] + 1)
    local text = not seen[path] and redis.call('HGET', KEYS[1], path)
    if text then
      seen[path] = true
      found[#found + 1] = path
      found[#found + 1] = text
    end
  end
end
return found
