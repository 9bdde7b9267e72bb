-- Commit changes of several runs of a shard, each by itself. None of them claims anything.
-- KEYS: those of `change.lua`, for each run. ARGV: for each run how many words are about it, and those words.
-- Returns one text, since each word costs the client: JSON with [reason, header, reply] for each, or null for what there is not.

local ALL = 13 -- keys of a run
local all_keys, all_words = KEYS, ARGV
local replies, at = {}, 1

for first = 1, #all_keys, ALL do
  local keys, words, size = {}, {}, tonumber(all_words[at])
  for place = 1, ALL do keys[place] = all_keys[first + place - 1] end
  for place = 1, size do words[place] = all_words[at + place] end
  at = at + size + 1
  turn_to(keys, words)
  local reply = commit()
  local text = reply[3]
  if not text or text == '' then text = 'null' end
  replies[#replies + 1] = string.format('["%s",', reply[1]) .. (reply[2] or 'null') .. ',' .. text .. ']'
end
return '[' .. table.concat(replies, ',') .. ']'
