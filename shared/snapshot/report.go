package snapshot

import (
	"encoding/json"
	"fmt"
)

// maxReport bounds a report well below the limit of a chunk.
const maxReport = MaxChunk / 2

type reportDocument struct {
	Problems []Problem `json:"problems"`
}

// MarshalReport returns the plain bytes of a report chunk. Of very many problems it keeps those that fit in 8 MiB; a last
// one then says how many are left out.
func MarshalReport(problems []Problem) []byte {
	dst := []byte(`{"problems":[`)
	for i := range problems {
		b := marshalProblem(&problems[i])
		if len(dst)+len(b) > maxReport {
			left := fmt.Sprintf("%d more problems are left out of the report", len(problems)-i)
			b = append(marshalProblem(&Problem{Operation: "report", Error: left}), "]}"...)
			return appendItem(dst, i, b)
		}
		dst = appendItem(dst, i, b)
	}
	return append(dst, "]}"...)
}

func appendItem(dst []byte, i int, b []byte) []byte {
	if i > 0 {
		dst = append(dst, ',')
	}
	return append(dst, b...)
}

func marshalProblem(p *Problem) []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic("snapshot: a problem has only strings and bytes: " + err.Error())
	}
	return b
}

// ParseReport parses a report chunk.
func ParseReport(plain []byte) ([]Problem, error) {
	if len(plain) > MaxChunk {
		return nil, fmt.Errorf("parse report: %w: %d bytes, over the limit of a chunk", ErrFormat, len(plain))
	}
	var doc reportDocument
	if err := json.Unmarshal(plain, &doc); err != nil {
		return nil, fmt.Errorf("parse report: %w: %w", ErrFormat, err)
	}
	return doc.Problems, nil
}
