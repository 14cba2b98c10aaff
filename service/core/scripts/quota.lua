-- key_id, max_active, max_stored, max_records, max_work. Returns the quota that one more record would exceed, or nothing.
return used_up(ARGV[1], 1, 0, ARGV[2], ARGV[3], ARGV[4], ARGV[5])
