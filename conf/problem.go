package conf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity of a Problem.
type Severity string

// Only errors stop a start.
const (
	SeverityError Severity = "error"
	SeverityWarn  Severity = "warn"
)

// Problem is one fault of a configuration. Text names the culprit and the remedy in one line.
type Problem struct {
	Code     string   `json:"code"` // LC001 …, stable
	Severity Severity `json:"severity"`
	Where    string   `json:"where"` // lagoon.toml:3:17, env LAGOON_…, --set …, default
	Key      string   `json:"key,omitempty"`
	Text     string   `json:"text"`

	line, col, layer int // order of report
}

func (p Problem) String() string {
	key := ""
	if p.Key != "" {
		key = p.Key + ": "
	}
	return fmt.Sprintf("%s: %s%s [%s]", p.Where, key, p.Text, p.Code)
}

// Problems is the error of this package: everything that is wrong, in the order of layers and lines.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.layer, b.layer), cmp.Compare(a.line, b.line), cmp.Compare(a.col, b.col))
	})
	return ps
}

func (ps Problems) split() (errs, warns Problems) {
	for _, p := range ps {
		if p.Severity == SeverityWarn {
			warns = append(warns, p)
		} else {
			errs = append(errs, p)
		}
	}
	return errs, warns
}

// The codes of problems; docs and tests refer to them, so a number is never reused.
const (
	codeSyntax      = "LC001" // not TOML
	codeUnknownKey  = "LC002"
	codeType        = "LC003" // a string where a number belongs, and the like
	codeValue       = "LC004" // unit missing, not one of the allowed words
	codeRange       = "LC005"
	codeListen      = "LC010"
	codeAdvertised  = "LC011"
	codeNoTier      = "LC020"
	codeTierName    = "LC021"
	codeTierPath    = "LC022"
	codeTierNested  = "LC023"
	codeTierKeep    = "LC024"
	codeTierLast    = "LC025"
	codeTierLevels  = "LC026"
	codeFlush       = "LC030"
	codeSizes       = "LC031"
	codePool        = "LC040"
	codeThrottle    = "LC050"
	codeAdminOpen   = "LC060"
	codeUnreadable  = "LC070"
	codeSetSyntax   = "LC071"
	codeTwoListens  = "LC012"
	codeUnusedValue = "LC080" // warn: set, but another setting makes it ineffective
	// CodeTopicDefault is for whoever checks Config.Topics.
	CodeTopicDefault = "LC032"
)
