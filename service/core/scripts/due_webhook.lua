-- seconds: the record whose webhook is due longest, which nobody else is given for so many seconds; or nothing.
local queue = NAMESPACE .. 'webhooks'
local id = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'LIMIT', 0, 1)[1]
if not id then return nil end
redis.call('ZADD', queue, now + ARGV[1], id)
return id
