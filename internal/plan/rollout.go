package plan

import "time"

// Rollout says how a model's requests move from one pool to another.
type Rollout struct {
	From, To *Pool
	Sticky   Sticky // the zero value: each request is drawn for itself
	Steps    []RolloutStep
	Judge    RolloutJudge
}

// RolloutStep is a share, and how long it holds at the least.
type RolloutStep struct {
	Percent float64       // above 0, under 100
	Pause   time.Duration // 0: until somebody promotes
}

// RolloutJudge says how much worse than From, in the same step, To may do.
type RolloutJudge struct {
	MinRequests            int64   // of To in each step
	MaxErrorRateIncrease   float64 // 0 to 1
	MaxRefusalRateIncrease float64 // 0 to 1
	MaxFirstTokenRatio     float64 // of the medians; 0: it is not judged
}
