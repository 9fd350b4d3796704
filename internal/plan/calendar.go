package plan

import "time"

// Date is a day on the clocks of some zone.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// Calendar is times that rules call by a name: hours of the week, and days that are
// in it, or are not, whatever the hours say.
type Calendar struct {
	Name   string
	Zone   *time.Location
	Hours  *Hours // nil: none
	Dates  map[Date]bool
	Except map[Date]bool
}

// Contain tells whether t is within the calendar.
func (c *Calendar) Contain(t time.Time) bool {
	if len(c.Dates) > 0 || len(c.Except) > 0 {
		year, month, day := t.In(c.Zone).Date()
		on := Date{year, month, day}
		switch {
		case c.Except[on]:
			return false
		case c.Dates[on]:
			return true
		}
	}
	return c.Hours != nil && c.Hours.Contain(t)
}
