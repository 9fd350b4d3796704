package config

import "github.com/weirproxy/weir/internal/plan"

func (c *compilation) compileDoctor() { c.out.Doctor = plan.Doctor{} }
