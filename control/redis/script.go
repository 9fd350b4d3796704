package redis

import (
	"context"
	"crypto/sha1" //nolint:gosec // what Redis knows scripts by
	_ "embed"
	"encoding/hex"

	"github.com/redis/rueidis"
)

//go:embed lua/history.lua
var historyLua string

//go:embed lua/look.lua
var lookLua string

//go:embed lua/put.lua
var putLua string

var (
	lookScript = newScript(historyLua + lookLua)
	putScript  = newScript(historyLua + putLua)
)

// script is one that the server runs as one step.
type script struct{ text, sha string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // what Redis knows scripts by
	return &script{text: text, sha: hex.EncodeToString(sum[:])}
}

func (c *script) build(s *Store, args ...string) rueidis.Completed {
	return s.client.B().Evalsha().Sha1(c.sha).Numkeys(1).Key(s.key("history")).Arg(args...).Build()
}

// unknown tells whether the server does not have the script yet.
func (c *script) unknown(answer rueidis.RedisResult) bool {
	err, ok := rueidis.IsRedisErr(answer.Error())
	return ok && err.IsNoScript()
}

// load runs the script and leaves it with the server.
func (c *script) load(ctx context.Context, s *Store, args ...string) rueidis.RedisResult {
	return s.client.Do(ctx, s.client.B().Eval().Script(c.text).Numkeys(1).Key(s.key("history")).Arg(args...).Build())
}

func (c *script) run(ctx context.Context, s *Store, args ...string) rueidis.RedisResult {
	answer := s.client.Do(ctx, c.build(s, args...))
	if c.unknown(answer) {
		answer = c.load(ctx, s, args...)
	}
	return answer
}
