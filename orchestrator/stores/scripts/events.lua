-- Return a page of a run's events, and the id of the first one that is left where the log has lost its beginning.
-- KEYS: header, events. ARGV: from which id (with its bracket), how many. Returns {events, id or ''}.

local found = redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2])
local text = redis.call('GET', KEYS[1])
return {found, text and cjson.decode(text).trimmed or ''}
