package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// report is what a worker prints for a seed: when it begins (Violations nil and Done
// false), and when it is done.
type report struct {
	Seed       uint64         `json:"seed"`
	Done       bool           `json:"done"`
	Shape      string         `json:"shape,omitempty"`
	Violations []string       `json:"violations,omitempty"`
	Stats      map[string]int `json:"stats,omitempty"`
	MS         int64          `json:"ms,omitempty"`
	Converged  time.Duration  `json:"converged,omitempty"`
}

const reportMark = "sim: "

// TestSeeds runs many seeds, each processor its share in a process of its own: a seed runs
// on one processor, so that its replay meets the same order, and one that hangs or panics
// is named and takes no other with it.
func TestSeeds(t *testing.T) {
	from, n := number(t, envFrom, 1), number(t, envSeeds, 1000)
	if testing.Short() {
		n = min(n, 50)
	}
	var k, workers uint64
	if _, err := fmt.Sscanf(os.Getenv(envWorker), "%d/%d", &k, &workers); err == nil {
		work(t, from, from+n, k, workers)
		return
	}
	s := &survey{t: t, began: time.Now(), total: newStats(), seeds: int(n)}
	workers = uint64(runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for k := range workers {
		all.Go(func() { s.worker(from, from+n, k, workers) })
	}
	all.Wait()
	s.sum()
}

// work runs the seeds of one worker.
func work(t *testing.T, from, to, k, workers uint64) {
	oneProcessor(t)
	quiet := slog.New(slog.DiscardHandler)
	for seed := from + k; seed < to; seed += workers {
		tell(report{Seed: seed})
		began := time.Now()
		res := run(t, seed, rules{}, quiet)
		tell(report{
			Seed: seed, Done: true, Shape: res.profile.shape.name, Violations: res.violations,
			Stats: res.stats.n, MS: time.Since(began).Milliseconds(), Converged: res.converged,
		})
	}
}

func tell(r report) {
	b, _ := json.Marshal(r) // of strings and numbers
	fmt.Printf("%s%s\n", reportMark, b)
}

// survey gathers what the workers say.
type survey struct {
	t     *testing.T
	began time.Time
	seeds int

	mu       sync.Mutex
	total    *stats
	done     int
	failed   int
	slowest  report
	longest  report // to converge
	progress time.Time
}

// failuresKept is after how many failing seeds a run gives up.
const failuresKept = 20

// hungAfter is how long one seed may take.
const hungAfter = 2 * time.Minute

// worker runs one worker, and another from the next seed on when it died.
func (s *survey) worker(from, to, k, workers uint64) {
	for seed := from + k; seed < to; {
		last, ok := s.process(seed, to, workers)
		if ok {
			return
		}
		seed = last + workers
	}
}

// process runs a child over its seeds. Not ok: it ended at seed last.
func (s *survey) process(from, to, workers uint64) (last uint64, ok bool) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestSeeds$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1",
		fmt.Sprintf("%s=0/%d", envWorker, workers), fmt.Sprintf("%s=%d", envFrom, from), fmt.Sprintf("%s=%d", envSeeds, to-from))
	var noise bytes.Buffer
	cmd.Stderr = &noise
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Errorf("start a worker: %v", err)
		return to, true
	}
	hung := time.AfterFunc(hungAfter, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	defer hung.Stop()
	last = from
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	open := false
	for lines.Scan() {
		line, found := strings.CutPrefix(lines.Text(), reportMark)
		var r report
		if !found || json.Unmarshal([]byte(line), &r) != nil {
			noise.WriteString(lines.Text() + "\n")
			continue
		}
		hung.Reset(hungAfter)
		last, open = r.Seed, !r.Done
		if r.Done && !s.take(r) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return last, true
		}
	}
	err = cmd.Wait()
	if err == nil && !open {
		return last, true
	}
	s.take(report{Seed: last, Done: true, Violations: []string{fmt.Sprintf("the worker died: %v\n%s", err, head(noise.String(), 60))}})
	return last, false
}

func head(text string, lines int) string {
	all := strings.SplitN(text, "\n", lines+1)
	return strings.Join(all[:min(len(all), lines)], "\n")
}

// take counts a seed. False: enough have failed.
func (s *survey) take(r report) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
	for what, n := range r.Stats {
		s.total.add(what, n)
	}
	if r.MS > s.slowest.MS {
		s.slowest = r
	}
	if r.Converged > s.longest.Converged {
		s.longest = r
	}
	if len(r.Violations) > 0 {
		s.failed++
		fmt.Fprintf(os.Stderr, "sim: seed %d (%s) failed: %s\n", r.Seed, r.Shape, r.Violations[0])
		s.t.Errorf("seed %d (%s): %d violations\n\t%s\n\treplay: %s", r.Seed, r.Shape, len(r.Violations),
			strings.Join(r.Violations[:min(len(r.Violations), 5)], "\n\t"), replayOf(r.Seed))
	}
	if time.Since(s.progress) > 10*time.Second {
		s.progress = time.Now()
		fmt.Fprintf(os.Stderr, "sim: %d of %d seeds, %d failed, %v\n", s.done, s.seeds, s.failed, time.Since(s.began).Round(time.Second))
	}
	return s.failed < failuresKept
}

// sum says what was tested.
func (s *survey) sum() {
	elapsed := time.Since(s.began)
	s.t.Logf("%d seeds in %v, %v each; slowest %d: %d ms; longest to converge %d: %v\n%s", s.done, elapsed.Round(time.Millisecond),
		(elapsed / time.Duration(max(1, s.done))).Round(time.Microsecond), s.slowest.Seed, s.slowest.MS,
		s.longest.Seed, s.longest.Converged, s.total)
}
