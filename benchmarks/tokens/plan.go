package main

import (
	"errors"
	"regexp"
	"slices"
)

// contender is who counts with which vocabulary.
type contender struct {
	vocabulary, peer string
}

// cellName names a measurement.
type cellName struct {
	contender
	text string
}

func (c cellName) String() string { return c.vocabulary + "/" + c.text + "/" + c.peer }

// group is what is compared in one table.
type group struct {
	title      string
	contenders []contender
	texts      []text
}

// plan is what is measured.
type plan struct {
	only  *regexp.Regexp
	vocab []group // by vocabulary; those that weir alone has are in one
	agent group
}

// The vocabularies that the peers have too, and those that weir alone has.
var (
	shared = []string{"o200k", "cl100k"}
	alone  = []string{"qwen", "deepseek", "tekken"}
)

func newPlan(root string, only *regexp.Regexp) (*plan, error) {
	texts, err := loadTexts(root)
	if err != nil {
		return nil, err
	}
	context, err := agentText(root)
	if err != nil {
		return nil, err
	}
	p := &plan{only: only}
	for _, v := range shared {
		g := group{title: v, texts: texts}
		for _, peer := range peers {
			g.contenders = append(g.contenders, contender{v, peer.name})
		}
		p.vocab = append(p.vocab, g)
	}
	g := group{title: "vocabularies that the peers have not", texts: texts}
	for _, v := range alone {
		g.contenders = append(g.contenders, contender{v, weir})
	}
	p.vocab = append(p.vocab, g)
	p.agent = group{title: "an agent's context", texts: []text{context}}
	for _, choice := range agents {
		p.agent.contenders = append(p.agent.contenders, contender{choice.Model, coldTurn}, contender{choice.Model, nextTurn})
	}
	p.prune()
	if len(p.groups()) == 0 {
		return nil, errors.New("--only leaves nothing")
	}
	return p, nil
}

// groups are all groups.
func (p *plan) groups() []group {
	if len(p.agent.contenders) == 0 {
		return p.vocab
	}
	return append(slices.Clip(p.vocab), p.agent)
}

// prune takes out what is not wanted.
func (p *plan) prune() {
	for i := range p.vocab {
		p.vocab[i] = p.wanted(p.vocab[i])
	}
	p.vocab = slices.DeleteFunc(p.vocab, func(g group) bool { return len(g.contenders) == 0 })
	p.agent = p.wanted(p.agent)
}

// wanted is the group with the texts and contenders of which there is a cell.
func (p *plan) wanted(g group) group {
	w := group{title: g.title}
	for _, c := range g.contenders {
		if slices.ContainsFunc(g.texts, func(t text) bool { return p.wants(cellName{c, t.name}) }) {
			w.contenders = append(w.contenders, c)
		}
	}
	for _, t := range g.texts {
		if slices.ContainsFunc(g.contenders, func(c contender) bool { return p.wants(cellName{c, t.name}) }) {
			w.texts = append(w.texts, t)
		}
	}
	return w
}

func (p *plan) wants(c cellName) bool { return p.only.MatchString(c.String()) }

// has tells whether any cell is a peer's.
func (p *plan) has(peer string) bool {
	for _, g := range p.groups() {
		if slices.ContainsFunc(g.contenders, func(c contender) bool { return c.peer == peer }) {
			return true
		}
	}
	return false
}
