package plan

import "time"

// Live is what is known at this moment of the pools and of their endpoints. It is
// read while a request is decided: reading allocates nothing and never waits, neither for
// the network nor for whoever writes. What is not known is said to be so, and never guessed.
type Live interface {
	// Pool is the state of a pool; ok is false when nothing is known of it.
	Pool(name string) (s PoolState, ok bool)
}

// PoolState is what is known of one pool.
type PoolState struct {
	Endpoints int // that are configured
	Healthy   int // of these, that are not known to be down
	// Open are the requests of which the pool was the first target and that have not
	// ended, as this replica of weir decided them. They are known at once, which what
	// backends report is not.
	Open int64

	// As the backends' own metrics say, over the endpoints that were heard of.
	// Heard is when the oldest of these was heard of; zero is never: then nothing here
	// is known. Stale says that it is too old to go by.
	Heard   time.Time
	Stale   bool
	Running float64 // requests that are worked on
	Waiting float64 // requests that wait in the backends' own queues
	KVUse   float64 // use of the KV cache, 0 to 1, mean over the endpoints

	// As this replica saw the attempts of the last minute. Attempts of 0 is that
	// nothing is known.
	Attempts    int64
	ErrorRate   float64       // of these, the part that failed, 0 to 1; 429 is no failure
	RefusedRate float64       // of these, the part that was answered with 429, 0 to 1
	FirstToken  time.Duration // the median time to the first token; 0 is not known

	// Failing says that so many attempts of the last seconds failed that the pool is
	// tried only after others.
	Failing bool
	// Dead says that the last attempts failed, all of them: a second try at the pool
	// would fail too.
	Dead bool
	// RestUntil is until when the pool asked to be left alone; zero is not.
	RestUntil time.Time
}

// EndpointState is what is known of one endpoint of a pool.
type EndpointState struct {
	Address string    // host:port
	Down    bool      // it did not answer the last times
	Heard   time.Time // zero is never
	Stale   bool
	Running float64
	Waiting float64
	KVUse   float64
	Error   string // why it was not heard of the last time; "" when it was
}
