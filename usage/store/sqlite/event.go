package sqlite

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store"
)

const columns = `id, end_us, start_us, key, application, team, model, requested_model, kind, stream,
	verdict, reason, stage, refusal_status, rule, targets, trace_id, known_input, known_certainty,
	reserved_input, reserved_output, max_output, limits, duration_us, first_token_us, status, outcome,
	attempts, pool, input, cached_input, output, reasoning, input_certainty, output_certainty,
	cost_nanousd, finish_reason, chunks, response_bytes, flags, details`

var (
	eventColumns = strings.Count(columns, ",") + 1
	insertEvent  = `INSERT OR IGNORE INTO events (` + columns + `) VALUES (?` + strings.Repeat(",?", eventColumns-1) + `)`
)

// eventArgs appends an event's columns. All of an event is kept but the prices
// of its targets: what it cost is.
func eventArgs(args []any, e *usagev1.Event) ([]any, error) {
	d, t := e.GetDecision(), e.GetTokens()
	id, err := hex.DecodeString(d.GetId())
	if err != nil || len(id) != 16 {
		return nil, fmt.Errorf("event %q: an id is 32 hex digits", d.GetId())
	}
	return append(args, id, micros(e.GetEnd()), micros(d.GetTime()),
		d.GetKey(), d.GetApplication(), d.GetTeam(), d.GetModel(), d.GetRequestedModel(), d.GetKind(), d.GetStream(),
		d.GetVerdict(), d.GetReason(), d.GetStage(), d.GetStatus(), d.GetRule(), strings.Join(d.GetTargets(), ","),
		traceBytes(d.GetTraceId()), d.GetInputTokens(), int64(d.GetInputCertainty()),
		d.GetReservedInputTokens(), d.GetReservedOutputTokens(), d.GetMaxOutputTokens(), strings.Join(d.GetLimits(), "\n"),
		e.GetDurationUs(), e.GetFirstTokenUs(), e.GetStatus(), e.GetOutcome(),
		attemptsText(e.GetAttempts()), e.GetPool(), t.GetInput(), t.GetCachedInput(), t.GetOutput(), t.GetReasoning(),
		int64(e.GetInputCertainty()), int64(e.GetOutputCertainty()),
		e.GetCostNanousd(), e.GetFinishReason(), e.GetChunks(), e.GetResponseBytes(), e.GetFlags(), e.GetDetails()), nil
}

func scanEvent(row interface{ Scan(...any) error }) (*usagev1.Event, error) {
	d, t := &usagev1.Decision{}, &usagev1.Tokens{}
	e := &usagev1.Event{Decision: d, Tokens: t}
	var id, trace []byte
	var end, start int64
	var targets, limits, attempts string
	err := row.Scan(&id, &end, &start,
		&d.Key, &d.Application, &d.Team, &d.Model, &d.RequestedModel, &d.Kind, &d.Stream,
		&d.Verdict, &d.Reason, &d.Stage, &d.Status, &d.Rule, &targets,
		&trace, &d.InputTokens, &d.InputCertainty,
		&d.ReservedInputTokens, &d.ReservedOutputTokens, &d.MaxOutputTokens, &limits,
		&e.DurationUs, &e.FirstTokenUs, &e.Status, &e.Outcome,
		&attempts, &e.Pool, &t.Input, &t.CachedInput, &t.Output, &t.Reasoning,
		&e.InputCertainty, &e.OutputCertainty,
		&e.CostNanousd, &e.FinishReason, &e.Chunks, &e.ResponseBytes, &e.Flags, &e.Details)
	if err != nil {
		return nil, err
	}
	d.Id, d.TraceId = hex.EncodeToString(id), hex.EncodeToString(trace)
	e.End, d.Time = timestamppb.New(time.UnixMicro(end)), timestamppb.New(time.UnixMicro(start))
	d.Targets, d.Limits = split(targets, ","), split(limits, "\n")
	e.Attempts = parseAttempts(attempts)
	return e, nil
}

func micros(t *timestamppb.Timestamp) int64 { return t.AsTime().UnixMicro() }

// traceBytes is a trace id's 16 bytes; nothing where it is none.
func traceBytes(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil
	}
	return b
}

func split(s, sep string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, sep)
}

func attemptsText(list []*usagev1.Attempt) string {
	var b []byte
	for i, a := range list {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, a.GetPool()...)
		b = append(b, ':')
		b = strconv.AppendInt(b, int64(a.GetStatus()), 10)
		b = append(b, ':')
		b = append(b, a.GetFailure()...)
	}
	return string(b)
}

func parseAttempts(s string) []*usagev1.Attempt {
	var list []*usagev1.Attempt
	for _, part := range split(s, ";") {
		words := strings.Split(part, ":")
		if len(words) != 3 {
			continue
		}
		status, _ := strconv.ParseInt(words[1], 10, 32)
		list = append(list, &usagev1.Attempt{Pool: words[0], Status: int32(status), Failure: words[2]})
	}
	return list
}

// Event implements store.Reader.
func (r *Reader) Event(ctx context.Context, id string) (*usagev1.Event, error) {
	key, err := hex.DecodeString(id)
	if err != nil {
		return nil, store.ErrNotFound
	}
	e, err := scanEvent(r.db.QueryRowContext(ctx, `SELECT `+columns+` FROM events WHERE id = ?`, key))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("usage store: %w", err)
	}
	return e, nil
}

// Since implements store.Reader.
func (r *Reader) Since(ctx context.Context, t time.Time, fn func(*usagev1.Event) error) error {
	rows, err := r.db.QueryContext(ctx, `SELECT `+columns+` FROM events WHERE end_us >= ? ORDER BY end_us`, t.UnixMicro())
	if err != nil {
		return fmt.Errorf("usage store: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells
	for rows.Next() {
		e, err := scanEvent(rows)
		if err != nil {
			return fmt.Errorf("usage store: %w", err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("usage store: %w", err)
	}
	return nil
}
