-- id, owner
local blocks = key('blocks', ARGV[1])
if redis.call('HGET', blocks, 'judge') ~= ARGV[2] then return 0 end
return redis.call('HDEL', blocks, 'judge')
