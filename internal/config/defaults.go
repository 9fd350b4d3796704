package config

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirproxy/weir/dialect/profile"
	"github.com/weirproxy/weir/internal/ai"
	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// fill puts the defaults that the schema documents where nothing was given.
func fill(c *configv1.Config) {
	orMessage(&c.Admin)
	orValue(&c.Admin.Address, "127.0.0.1:10081")
	orValue(&c.DataDir, "./weir-data")
	if c.KeyHashSecret.GetSource() == nil {
		c.KeyHashSecret = &configv1.SecretRef{Source: &configv1.SecretRef_Generated{Generated: "key-hash"}}
	}
	orValue(&c.TimeZone, "UTC")
	for _, p := range c.Pools {
		fillPool(p)
	}
	for _, m := range c.Models {
		orValue(&m.DefaultMaxTokens, 4096)
		orValue(&m.MinOutputTokens, 256)
		if t := m.Tiers; t != nil {
			orValue(&t.LightInputTokens, lightInput)
			orValue(&t.LightOutputTokens, lightOutput)
		}
		fillRollout(m.Rollout)
		orValue(&m.MaxAttempts, 4)
		orDuration(&m.FirstTokenTimeout, 30*time.Second)
		orDuration(&m.AttemptTimeout, 600*time.Second)
		for i, rule := range m.Rules {
			orValue(&rule.Name, fmt.Sprintf("rule-%d", i))
		}
	}
	for _, l := range c.Listeners {
		if l.GetTls().GetClientCaFile() != "" {
			orValue(&l.Tls.ClientCertificate, "required")
		}
	}
	for _, t := range c.TokenIssuers {
		if r := t.GetJwks(); r != nil {
			orDuration(&r.Refresh, 300*time.Second)
		}
	}
	if len(c.ProxyTrust.GetTrustedProxies()) > 0 {
		orValue(&c.ProxyTrust.TrustedHops, 1)
	}
	for _, k := range c.Calendars {
		orValue(&k.TimeZone, k.GetHours().GetTimeZone())
		orValue(&k.TimeZone, c.TimeZone)
	}
	for _, l := range c.Limits {
		fillLimit(c, l)
	}
	fillStore(c.LimitStore.GetRedis())
	orMessage(&c.RequestBounds)
	orValue(&c.RequestBounds.MaxBodyBytes, 32<<20)
	orValue(&c.RequestBounds.MaxDepth, 64)
	orMessage(&c.Usage)
	orDuration(&c.Usage.SettleDeadline, 900*time.Second)
	orDuration(&c.Usage.Retention, 2160*time.Hour)
	orMessage(&c.Doctor)
	orDuration(&c.Doctor.Interval, 30*time.Second)
}

func fillStore(r *configv1.RedisStore) {
	if r == nil {
		return
	}
	orValue(&r.Name, "weir")
	orValue(&r.Replicas, 1)
	orValue(&r.WhenAway, "refuse")
	if r.WhenAway == "allowance" {
		orValue(&r.AllowancePercent, 5)
	}
	orDuration(&r.Timeout, 250*time.Millisecond)
}

func fillLimit(c *configv1.Config, l *configv1.Limit) {
	if l.Period == "" && l.Unit != "concurrency" {
		orDuration(&l.Window, time.Minute)
	}
	if l.Period != "" {
		orValue(&l.TimeZone, c.TimeZone)
		if len(l.AlertAt) == 0 && !l.NoAlerts {
			l.AlertAt = []uint32{50, 80, 100}
		}
	}
	orValue(&l.OnBreach, "refuse")
	if l.OnBreach == "queue" {
		orDuration(&l.QueueWait, 2*time.Second)
	}
}

func fillPool(p *configv1.Pool) {
	orValue(&p.Adapter, profile.Default)
	orDuration(&p.ConnectTimeout, 2*time.Second)
	if p.Placement == string(ai.Public) {
		orValue(&p.AbandonedAttempts, billed)
	}
	orValue(&p.AbandonedAttempts, free)
	if m := p.Metrics; m != nil && !m.Off {
		orDuration(&m.Interval, metricsInterval)
		orDuration(&m.Timeout, metricsTimeout)
	}
	fillHealth(p)
	for _, e := range p.Endpoints {
		orValue(&e.Weight, 1)
	}
	if c := p.Credential; c != nil {
		kind, ok := profile.ByName(p.Adapter)
		if !ok {
			kind, _ = profile.ByName(profile.Default) // compiling tells
		}
		orValue(&c.Header, kind.Header)
		if c.Prefix == nil {
			c.Prefix = proto.String("")
			if c.Header == "authorization" {
				c.Prefix = proto.String("Bearer ")
			}
		}
	}
}

func orValue[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// orOptional is for fields of which zero is a value too.
func orOptional[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

func orMessage[T any](field **T) {
	if *field == nil {
		*field = new(T)
	}
}

func orDuration(field **durationpb.Duration, value time.Duration) {
	if *field == nil {
		*field = durationpb.New(value)
	}
}
