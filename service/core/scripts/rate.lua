-- key_id, creations per minute: counts one. A key may create a minute's worth at once, and then one per interval.
-- Returns nothing, or the seconds to wait.
local name, interval = key('rate', ARGV[1]), 60 / tonumber(ARGV[2])
local due = math.max(now, tonumber(redis.call('GET', name) or 0))
if due + interval - now > 60 then return string.format('%.3f', due + interval - now - 60) end
redis.call('SET', name, string.format('%.6f', due + interval), 'EX', 120)
return nil
