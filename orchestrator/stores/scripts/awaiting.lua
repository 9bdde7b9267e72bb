-- Return the activations with an awaiting status, without reading the others.
-- KEYS: activations, awaiting. Returns paths and activations by turns.

local paths, found = redis.call('SMEMBERS', KEYS[2]), {}
for _, path in ipairs(paths) do
  local text = redis.call('HGET', KEYS[1], path)
  if text then
    found[#found + 1] = path
    found[#found + 1] = text
  end
end
return found
