-- name, holder, seconds: returns 1 if the holder has the lock now, 0 if another has it.
return redis.call('SET', NAMESPACE .. ARGV[1], ARGV[2], 'NX', 'EX', ARGV[3]) and 1 or 0
