package nearest

// maxWord is longer than any key, topic (249) or group name worth correcting.
const maxWord = 256

// Word returns the candidate within optimal string alignment distance 2 of word (1 for words shorter than 5), the first of the
// nearest ones, or "" when there is none. Adjacent transpositions count once (Damerau-Levenshtein).
func Word(word string, candidates []string) string {
	limit := 2
	if len(word) < 5 {
		limit = 1
	}
	best, bestDistance := "", limit+1
	for _, c := range candidates {
		if d := distance(word, c, limit); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance of a and b; above limit any larger number is returned.
func distance(a, b string, limit int) int {
	if len(a) > maxWord || len(b) > maxWord || len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	var before, prev []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, prev, row = prev, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
