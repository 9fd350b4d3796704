package plan

import (
	"fmt"
	"strings"
	"time"
)

const (
	minutesOfDay  = 24 * 60
	minutesOfWeek = 7 * minutesOfDay
	secondsOfWeek = 60 * minutesOfWeek
	thursday      = 4 * 86400 // the week begins on Sunday, Unix time on a Thursday
)

// Hours are minutes of the week on the clocks of one zone. An hour that the end
// of summer time repeats is within both times or neither; one that its beginning
// skips is never.
type Hours struct {
	zone *time.Location
	week [(minutesOfWeek + 63) / 64]uint64 // by minute, from Sunday 00:00
}

// NewHours are hours without any time in them.
func NewHours(zone *time.Location) *Hours { return &Hours{zone: zone} }

// Add adds the time from one minute of a day to another, which is on the next
// day if it is not after the first. It tells whether that adds anything. Only the
// compiler calls it, before the plan is published.
func (h *Hours) Add(day time.Weekday, from, to int) (added bool) {
	if to <= from {
		to += minutesOfDay
	}
	for m := int(day)*minutesOfDay + from; m < int(day)*minutesOfDay+to; m++ {
		at := m % minutesOfWeek
		if bit := uint64(1) << (at % 64); h.week[at/64]&bit == 0 {
			h.week[at/64] |= bit
			added = true
		}
	}
	return added
}

// Always tells whether all times are within the hours.
func (h *Hours) Always() bool {
	for m := range minutesOfWeek {
		if !h.has(m) {
			return false
		}
	}
	return true
}

// Contain tells whether t is within the hours.
func (h *Hours) Contain(t time.Time) bool {
	_, offset := t.In(h.zone).Zone()
	s := (t.Unix() + int64(offset) + thursday) % secondsOfWeek
	if s < 0 { // before 1970
		s += secondsOfWeek
	}
	return h.has(int(s / 60))
}

// String is the zone and the hours, as "Europe/Berlin Mon Tue 08:00-18:30, Sat
// 22:00-Mon 06:00"; the day of an end is told where the next time of that clock is
// not meant.
func (h *Hours) String() string {
	days := map[string]string{}
	var all []string // each stretch once, in the order of the week
	for m := range minutesOfWeek {
		if !h.has(m) || h.has(m+minutesOfWeek-1) {
			continue
		}
		end := m + 1
		for h.has(end) {
			end++
		}
		stretch := clock(m) + "-"
		if end-m >= minutesOfDay {
			stretch += day(end) + " "
		}
		if stretch += clock(end); days[stretch] == "" {
			all = append(all, stretch)
		}
		days[stretch] += " " + day(m)
	}
	for i, stretch := range all {
		all[i] = days[stretch] + " " + stretch
	}
	return h.zone.String() + strings.Join(all, ",")
}

func (h *Hours) has(m int) bool {
	m %= minutesOfWeek
	return h.week[m/64]&(1<<(m%64)) != 0
}

func day(m int) string { return time.Weekday(m / minutesOfDay % 7).String()[:3] }

func clock(m int) string { return fmt.Sprintf("%02d:%02d", m%minutesOfDay/60, m%60) }
