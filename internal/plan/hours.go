package plan

import "time"

const (
	minutesOfDay  = 24 * 60
	minutesOfWeek = 7 * minutesOfDay
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
		if h.week[m/64]&(1<<(m%64)) == 0 {
			return false
		}
	}
	return true
}

// Contain tells whether t is within the hours.
func (h *Hours) Contain(t time.Time) bool {
	t = t.In(h.zone)
	m := int(t.Weekday())*minutesOfDay + t.Hour()*60 + t.Minute()
	return h.week[m/64]&(1<<(m%64)) != 0
}

// Zone is the name of the hours' time zone.
func (h *Hours) Zone() string { return h.zone.String() }
