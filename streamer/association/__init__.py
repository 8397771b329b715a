"""Events of all shards: one associator at a time takes what the shards decided, in data time, and publishes the events.

`notes` is what a shard tells, `association` what follows from it, `desk` where it lies on Redis and who may write there,
`program` the life of the process.
"""
