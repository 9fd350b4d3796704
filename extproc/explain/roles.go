package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/plan"
)

func roles(ex *pipeline.Exchange) []Role {
	var all []Role
	for i, r := range ex.Grants.Roles() {
		role := Role{Name: r.Name, Permits: permits(r)}
		if check, ended := ex.Grants.Ended(i); ended {
			role.EndedBy = string(check.Reason())
		}
		all = append(all, role)
	}
	return all
}

func egressRefused(ex *pipeline.Exchange) string {
	switch {
	case ex.Decision.Rule == "":
		return ""
	case ex.Decision.RefuseEgress:
		return "refuse"
	}
	return "next"
}

// permits tells what a role permits, and in which bounds.
func permits(r *plan.Role) string {
	parts := []string{"models " + names(r.AllModels, r.Models)}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if r.Endpoints != nil {
		var kinds []string
		for _, k := range r.Endpoints {
			kinds = append(kinds, string(k))
		}
		add("endpoints %s", strings.Join(kinds, ", "))
	}
	for _, f := range plan.AllFeatures {
		if r.Denied&f.Feature != 0 {
			add("no %s", f.Name)
		}
	}
	if r.MaxContext > 0 {
		add("at most %d input tokens", r.MaxContext)
	}
	if r.MaxOutput > 0 {
		add("at most %d output tokens", r.MaxOutput)
	}
	if r.Pools != nil {
		add("pools %s", names(false, r.Pools))
	}
	if r.AllEgress || len(r.EgressPools) > 0 {
		add("egress to %s", names(r.AllEgress, r.EgressPools))
	} else {
		add("no egress")
	}
	if r.Hours != nil {
		add("at %s", r.Hours)
	}
	if r.Network != nil {
		add("from its network")
	}
	return strings.Join(parts, "; ")
}

func names(all bool, some map[string]bool) string {
	if all {
		return "*"
	}
	return strings.Join(slices.Sorted(maps.Keys(some)), ", ")
}
