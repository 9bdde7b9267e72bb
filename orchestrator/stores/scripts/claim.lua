-- Take a queued record, one whose moment has come, or one whose lease is over. A repeat gets the first answer.
-- ARGV: run id, path, seq, token, lease. Answers {'', header, record, values, state, context} or {reason[, header]}.

local path, seq, token = ARGV[2], tonumber(ARGV[3]), ARGV[4]
lease = tonumber(ARGV[5])

if not load_header() then return {'unknown'} end
local record = find(path)
if not record then return {'unknown', header_text} end
if header.status ~= 'running' or (header.closed and path ~= '') then return {'ended', header_text} end
if record.status == 'running' and record.token == token then return package({'', header_text}, path) end
if (record.seq or 0) ~= seq then return {'stale', header_text} end
local over = (record.due or 0) <= now
if record.status == 'running' then
  if not over or header.auto_restart == false then return {'busy', header_text} end
  record.lost, record.restarted = (record.lost or 0) + 1, true
elseif record.status == 'retrying' or record.status == 'sleeping' then
  if not over then return {'early', header_text} end
elseif record.status ~= 'queued' then
  return {'stale', header_text}
end
begin()
put(record, {status = 'running'}, token, 0)
save()
return package({'', header_text}, path)
