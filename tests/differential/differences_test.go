package differential

import "regexp"

// difference is a way in which answers may differ, and why. A field that differs is explained by the first entry that covers it.
type difference struct {
	api      string // of the request; "": any
	sequence string // expression on the name of the sequence; "": any
	path     string // expression on the path, which matches all of it
	lagoon   string // expression on the value, which matches all of it; "": any
	kafka    string // likewise
	what     string // for the reader of docs/compatibility.md: what differs …
	why      string // … and why
}

func (d difference) covers(f found) bool {
	whole := func(expr, s string) bool { return expr == "" || regexp.MustCompile(`^(?:`+expr+`)$`).MatchString(s) }
	return (d.api == "" || d.api == f.api) && (d.sequence == "" || regexp.MustCompile(d.sequence).MatchString(f.sequence)) &&
		whole(d.path, f.path) && whole(d.lagoon, f.lagoon) && whole(d.kafka, f.kafka)
}

var differences = []difference{}
