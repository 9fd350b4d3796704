package app

import (
	"log/slog"
	"time"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/extproc/stage/access"
	"github.com/weirproxy/weir/extproc/stage/auth"
	"github.com/weirproxy/weir/extproc/stage/decode"
	"github.com/weirproxy/weir/extproc/stage/models"
	"github.com/weirproxy/weir/extproc/stage/network"
	"github.com/weirproxy/weir/extproc/stage/quota"
	"github.com/weirproxy/weir/extproc/stage/route"
	"github.com/weirproxy/weir/extproc/stage/tokens"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	counting "github.com/weirproxy/weir/tokens"
)

// leftFunc tells which part of a limit is left for who calls.
type leftFunc = func(*plan.Limit, *pipeline.Exchange) (float64, bool)

// newPipeline is the order in which a request is judged. PII and moderation come
// after tokens, the response cache after quota.
func newPipeline(ledger quota.Ledger, outputs *limit.Outputs, rests *route.Rests, known plan.Live, left leftFunc, share func(*plan.Model) float64, memo *counting.Memo, learned *counting.Learned, log *slog.Logger) *pipeline.Pipeline {
	routes := route.New(rests)
	routes.Live, routes.Left, routes.Share = known, left, share
	p := pipeline.New(
		auth.Stage{},
		network.Stage{},
		access.Stage{},
		models.Stage{},
		decode.Stage{},
		tokens.New(memo, learned),
		quota.NewGate(ledger),
		routes,
		quota.New(ledger, outputs),
	)
	p.Log = log
	return p
}

// NewPipeline is the production pipeline with a ledger of its own, in which no
// limit is used yet: for explain. The log has what stages fail of.
func NewPipeline(log *slog.Logger) *pipeline.Pipeline {
	return newPipeline(limit.New(time.Now), limit.NewOutputs(), route.NewRests(), nil, nil, nil, nil, counting.NewLearned(), log)
}
