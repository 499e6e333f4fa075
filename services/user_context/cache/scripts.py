"""The protocol of fences, run inside Redis on one person's hash.

KEYS[1] is the person's key, ARGV[1] the part's letter. Fields of a part: <part>f fence, <part>t
token, <part>v version of what is stored, <part>p its message form, <part>j its JSON form, <part>s
the SHA-1 of each form as it was filled, in hexadecimal one after the other. Versions are
zero-padded texts, since Lua's numbers are exact only to 2**53. Every write extends the time to live
of the key: a key that expires loses its fence, and the token makes that harmless.
"""

# ARGV: part, version, token, milliseconds to live. Returns the token in force.
BEGIN = """
local token = redis.call('HGET', KEYS[1], ARGV[1] .. 't')
if not token then
  token = ARGV[3]
  redis.call('HSET', KEYS[1], ARGV[1] .. 'f', ARGV[2], ARGV[1] .. 't', token)
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return token
"""

# ARGV: part, version, token, milliseconds to live. Returns the token in force.
INVALIDATE = """
local held = redis.call('HMGET', KEYS[1], ARGV[1] .. 't', ARGV[1] .. 'f')
local token = held[1]
if not token then
  token = ARGV[3]
  redis.call('HSET', KEYS[1], ARGV[1] .. 'f', ARGV[2], ARGV[1] .. 't', token)
elseif held[2] < ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1] .. 'f', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return token
"""

# ARGV: part, version. Returns 1 if there was a fence.
RAISE_FENCE = """
local fence = redis.call('HGET', KEYS[1], ARGV[1] .. 'f')
if not fence then return 0 end
if fence < ARGV[2] then redis.call('HSET', KEYS[1], ARGV[1] .. 'f', ARGV[2]) end
return 1
"""

# ARGV: part, version, token, milliseconds to live, message form, JSON form, their SHA-1. Returns 1
# if stored.
FILL = """
local held = redis.call('HMGET', KEYS[1], ARGV[1] .. 't', ARGV[1] .. 'f', ARGV[1] .. 'v')
if held[1] ~= ARGV[3] or ARGV[2] < held[2] then return 0 end
if held[3] and ARGV[2] < held[3] then return 0 end
redis.call('HSET', KEYS[1],
  ARGV[1] .. 'v', ARGV[2], ARGV[1] .. 'p', ARGV[5], ARGV[1] .. 'j', ARGV[6],
  ARGV[1] .. 's', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""

# ARGV: part, length of a form's header. Returns fence, the header of each form, and 1 if both forms
# are what was stored. The bodies of the forms are not sent.
INSPECT = """
local held = redis.call('HMGET', KEYS[1],
  ARGV[1] .. 'f', ARGV[1] .. 'p', ARGV[1] .. 'j', ARGV[1] .. 's')
local message, json = held[2] or '', held[3] or ''
local sums = redis.sha1hex(message) .. redis.sha1hex(json)
return {held[1], message:sub(1, ARGV[2]), json:sub(1, ARGV[2]), sums == held[4] and 1 or 0}
"""

ALL = (BEGIN, INVALIDATE, RAISE_FENCE, FILL, INSPECT)
