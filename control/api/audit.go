package api

import (
	"context"
	"fmt"
	"strconv"

	"connectrpc.com/connect"

	"github.com/weirproxy/weir/control"
	adminv1 "github.com/weirproxy/weir/proto/weir/admin/v1"
	"github.com/weirproxy/weir/proto/weir/admin/v1/adminv1connect"
)

// audit is AuditService.
type audit struct{ control.Store }

var _ adminv1connect.AuditServiceHandler = (*audit)(nil)

func (a *audit) ListAudit(ctx context.Context, req *connect.Request[adminv1.ListAuditRequest]) (*connect.Response[adminv1.ListAuditResponse], error) {
	m := req.Msg
	limit, err := pageSize(m.PageSize)
	if err != nil {
		return nil, err
	}
	switch control.Outcome(m.Outcome) {
	case "", control.Done, control.Denied, control.Failed:
	default:
		return nil, fmt.Errorf("outcome: %w: done, denied or failed", control.ErrInvalid)
	}
	f := control.AuditFilter{Actor: m.Actor, Action: m.Action, Object: m.Object, Outcome: control.Outcome(m.Outcome)}
	if f.Since, err = timeOf("since", m.Since); err != nil {
		return nil, err
	}
	if m.PageToken != "" {
		if f.Before, err = strconv.ParseInt(m.PageToken, 10, 64); err != nil || f.Before < 1 {
			return nil, fmt.Errorf("page_token: %w: it is none of this list", control.ErrInvalid)
		}
	}
	list, err := a.Audit(ctx, f, limit+1)
	if err != nil {
		return nil, err
	}
	resp := &adminv1.ListAuditResponse{}
	if len(list) > limit {
		list = list[:limit]
		resp.NextPageToken = strconv.FormatInt(list[limit-1].ID, 10)
	}
	for _, r := range list {
		resp.Records = append(resp.Records, &adminv1.AuditRecord{
			Id: r.ID, Time: timestamp(r.Time), Actor: r.Actor, Roles: r.Roles, Action: r.Action, Object: r.Object,
			Before: r.Before, After: r.After, Outcome: string(r.Outcome), Detail: r.Detail,
		})
	}
	return connect.NewResponse(resp), nil
}
