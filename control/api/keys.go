package api

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
	adminv1 "github.com/weirproxy/weir/proto/weir/admin/v1"
	"github.com/weirproxy/weir/proto/weir/admin/v1/adminv1connect"
)

// keys is KeyService.
type keys struct{ *control.Keeper }

var _ adminv1connect.KeyServiceHandler = (*keys)(nil)

func actorOf(ctx context.Context) control.Actor {
	a, _ := ctx.Value(actorKey{}).(control.Actor) // the interceptor holds that there is one
	return a
}

func (k *keys) CreateKey(ctx context.Context, req *connect.Request[adminv1.CreateKeyRequest]) (*connect.Response[adminv1.CreateKeyResponse], error) {
	m := req.Msg
	expires, err := timeOf("expire_time", m.ExpireTime)
	if err != nil {
		return nil, err
	}
	ttl, err := durationOf("ttl", m.Ttl)
	switch {
	case err != nil:
		return nil, err
	case m.Ttl != nil && m.ExpireTime != nil:
		return nil, fmt.Errorf("ttl: %w: either ttl or expire_time", control.ErrInvalid)
	case m.Ttl != nil && ttl <= 0:
		return nil, fmt.Errorf("ttl: %w: it must be positive", control.ErrInvalid)
	case m.Ttl != nil:
		expires = k.now().Add(ttl)
	}
	v, secret, err := k.Create(ctx, actorOf(ctx), control.New{
		Name: m.Name, Owner: plan.Owner{Application: m.Application, Team: m.Team, Roles: m.Roles}, Note: m.Note, Expires: expires,
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.CreateKeyResponse{Key: k.message(&v), Secret: secret}), nil
}

func (k *keys) now() time.Time {
	if k.Now != nil {
		return k.Now()
	}
	return time.Now()
}

func (k *keys) ListKeys(ctx context.Context, req *connect.Request[adminv1.ListKeysRequest]) (*connect.Response[adminv1.ListKeysResponse], error) {
	m := req.Msg
	limit, err := pageSize(m.PageSize)
	if err != nil {
		return nil, err
	}
	list, more, err := k.Keys(ctx, control.Query{Application: m.Application, Team: m.Team, Status: m.Status, After: m.PageToken, Limit: limit})
	if err != nil {
		return nil, err
	}
	resp := &adminv1.ListKeysResponse{}
	for i := range list {
		resp.Keys = append(resp.Keys, k.message(&list[i]))
	}
	if more {
		resp.NextPageToken = list[len(list)-1].Name
	}
	return connect.NewResponse(resp), nil
}

func (k *keys) GetKey(ctx context.Context, req *connect.Request[adminv1.GetKeyRequest]) (*connect.Response[adminv1.GetKeyResponse], error) {
	var v control.View
	var err error
	switch key := req.Msg.Key.(type) {
	case *adminv1.GetKeyRequest_Name:
		v, err = k.Key(ctx, key.Name)
	case *adminv1.GetKeyRequest_Secret:
		v, err = k.KeyBySecret(ctx, key.Secret)
	default:
		err = fmt.Errorf("key: %w: name or secret is required", control.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.GetKeyResponse{Key: k.message(&v)}), nil
}

func (k *keys) RotateKey(ctx context.Context, req *connect.Request[adminv1.RotateKeyRequest]) (*connect.Response[adminv1.RotateKeyResponse], error) {
	expires, err := timeOf("expire_time", req.Msg.ExpireTime)
	if err != nil {
		return nil, err
	}
	overlap := control.DefaultOverlap
	if req.Msg.Overlap != nil {
		if overlap, err = durationOf("overlap", req.Msg.Overlap); err != nil {
			return nil, err
		}
	}
	v, secret, err := k.Rotate(ctx, actorOf(ctx), req.Msg.Name, overlap, expires)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.RotateKeyResponse{Key: k.message(&v), Secret: secret}), nil
}

func (k *keys) SetKeyState(ctx context.Context, req *connect.Request[adminv1.SetKeyStateRequest]) (*connect.Response[adminv1.SetKeyStateResponse], error) {
	state := plan.StateActive
	switch req.Msg.State {
	case adminv1.KeyState_KEY_STATE_ACTIVE:
	case adminv1.KeyState_KEY_STATE_DISABLED:
		state = plan.StateDisabled
	default:
		return nil, fmt.Errorf("state: %w: active or disabled; RevokeKey revokes", control.ErrInvalid)
	}
	v, err := k.SetState(ctx, actorOf(ctx), req.Msg.Name, state, req.Msg.Reason)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.SetKeyStateResponse{Key: k.message(&v)}), nil
}

func (k *keys) RevokeKey(ctx context.Context, req *connect.Request[adminv1.RevokeKeyRequest]) (*connect.Response[adminv1.RevokeKeyResponse], error) {
	v, err := k.SetState(ctx, actorOf(ctx), req.Msg.Name, plan.StateRevoked, req.Msg.Reason)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&adminv1.RevokeKeyResponse{Key: k.message(&v)}), nil
}

// message is a key as callers see it.
func (k *keys) message(v *control.View) *adminv1.Key {
	m := &adminv1.Key{
		Name: v.Name, Source: adminv1.KeySource_KEY_SOURCE_STORE, Application: v.Owner.Application, Team: v.Owner.Team, Roles: v.Owner.Roles,
		State: adminv1.KeyState(v.State) + adminv1.KeyState_KEY_STATE_ACTIVE, Refused: string(v.Refused), Gone: v.Gone, Note: v.Note, Creator: v.Creator,
		ExpireTime: timestamp(v.Expires), CreateTime: timestamp(v.Created), RotateTime: timestamp(v.Rotated), OverlapEndTime: timestamp(v.OverlapEnd(k.now())),
	}
	if v.Refused != "" { // then no secret of it opens
		m.OverlapEndTime = nil
	}
	if v.Static {
		m.Source = adminv1.KeySource_KEY_SOURCE_CONFIG
	}
	return m
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeOf(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil || t.AsTime().Unix() <= 0 {
		return time.Time{}, fmt.Errorf("%s: %w: no time after 1970", field, control.ErrInvalid)
	}
	return t.AsTime().Truncate(time.Microsecond), nil
}

func durationOf(field string, d *durationpb.Duration) (time.Duration, error) {
	const longest = 100 * 365 * 24 * time.Hour
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() > longest {
		return 0, fmt.Errorf("%s: %w: no duration up to 100 years", field, control.ErrInvalid)
	}
	return d.AsDuration(), nil
}

// pageSize is how many are asked for.
func pageSize(n int32) (int, error) {
	switch {
	case n == 0:
		return 100, nil
	case n < 0 || n > 1000:
		return 0, fmt.Errorf("page_size: %w: from 1 to 1000", control.ErrInvalid)
	}
	return int(n), nil
}
