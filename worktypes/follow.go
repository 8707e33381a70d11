package worktypes

import (
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pollEvery is how often files are looked at when the kernel refuses to watch
// them.
const pollEvery = 100 * time.Millisecond

// follower wakes readers when the files that they follow may have grown. All
// files of a Manager share one inotify instance: a host has few of them (128
// per user by default). Only files that somebody follows are watched.
//
// Two goroutines run while there is something to follow: watch takes the
// kernel's events, and poll, only where inotify is refused, ticks.
type follower struct {
	log        *slog.Logger
	newWatcher func() (*fsnotify.Watcher, error)

	// admin serialises follow, unfollow and close. It is not taken by watch,
	// so that the watcher can always hand over its events while one of them
	// waits for the watcher.
	admin   sync.Mutex
	watcher *fsnotify.Watcher // nil until first used, and when refused
	refused bool
	stop    chan struct{} // closed by close
	polling bool
	wg      sync.WaitGroup

	mu    sync.Mutex // guards what is below; held for moments only
	files map[string]*followed
}

// followed is one file and who waits for it.
type followed struct {
	polled bool
	wake   map[chan struct{}]struct{} // each of capacity 1
}

func newFollower(log *slog.Logger) *follower {
	return &follower{
		log:        log,
		newWatcher: fsnotify.NewWatcher,
		stop:       make(chan struct{}),
		files:      map[string]*followed{},
	}
}

// follow returns a channel that gets a value after the file has changed, and
// sometimes when it has not. unfollow ends that; it must be called.
func (f *follower) follow(path string) (wake <-chan struct{}, unfollow func()) {
	ch := make(chan struct{}, 1)
	f.admin.Lock()
	defer f.admin.Unlock()
	f.mu.Lock()
	file := f.files[path]
	if file != nil {
		file.wake[ch] = struct{}{}
	}
	f.mu.Unlock()
	if file == nil {
		file = &followed{wake: map[chan struct{}]struct{}{ch: {}}}
		file.polled = !f.add(path)
		f.mu.Lock()
		f.files[path] = file
		f.mu.Unlock()
	}
	return ch, func() { f.unfollow(path, file, ch) }
}

func (f *follower) unfollow(path string, file *followed, ch chan struct{}) {
	f.admin.Lock()
	defer f.admin.Unlock()
	f.mu.Lock()
	delete(file.wake, ch)
	last := len(file.wake) == 0
	if last {
		delete(f.files, path)
	}
	f.mu.Unlock()
	if last && !file.polled && f.watcher != nil {
		// An error means that the file is gone, and the watch with it.
		_ = f.watcher.Remove(path)
	}
}

// add lets the kernel watch a file; false means that it must be polled.
func (f *follower) add(path string) bool {
	if f.watcher == nil && !f.refused {
		w, err := f.newWatcher()
		if err != nil {
			f.warn(err)
		} else {
			f.watcher = w
			f.wg.Go(func() { f.watch(w) })
		}
	}
	if f.watcher != nil {
		err := f.watcher.Add(path)
		if err == nil {
			return true
		}
		if _, serr := os.Stat(path); serr == nil { // else nothing can be done for it
			f.warn(err)
		}
	}
	if !f.polling {
		f.polling = true
		f.wg.Go(f.poll)
	}
	return false
}

// warn says once that files are polled from now on.
func (f *follower) warn(err error) {
	if !f.refused {
		f.log.Warn("the kernel refuses to watch output files: looking at them every 100 ms instead; raise fs.inotify.max_user_instances and max_user_watches",
			"error", err)
	}
	f.refused = true
}

// A job that writes fast makes more events than anybody can use. After burst of
// them in a burstTime the goroutine watch pauses for as long: meanwhile the kernel
// makes one of those that say the same.
const (
	burst     = 16
	burstTime = time.Millisecond
)

// watch is the goroutine that takes the events of the inotify instance.
func (f *follower) watch(w *fsnotify.Watcher) {
	events, since := 0, time.Now()
	for {
		if events++; events == burst {
			if now := time.Now(); now.Sub(since) < burstTime {
				time.Sleep(burstTime)
			}
			events, since = 0, time.Now()
		}
		select {
		case e, ok := <-w.Events:
			if !ok {
				return
			}
			f.mu.Lock()
			if file := f.files[e.Name]; file != nil {
				file.wakeAll()
			}
			f.mu.Unlock()
		case err, ok := <-w.Errors:
			if !ok {
				return
			}
			// Events were lost, of whatever file: everybody looks.
			f.log.Debug("watching output files", "error", err)
			f.wakeFiles(func(*followed) bool { return true })
		}
	}
}

// poll is the goroutine that stands in for the kernel's events.
func (f *follower) poll() {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.wakeFiles(func(file *followed) bool { return file.polled })
		case <-f.stop:
			return
		}
	}
}

func (f *follower) wakeFiles(which func(*followed) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, file := range f.files {
		if which(file) {
			file.wakeAll()
		}
	}
}

func (f *followed) wakeAll() {
	for ch := range f.wake {
		select {
		case ch <- struct{}{}:
		default: // it has not looked since the last one
		}
	}
}

// close ends the goroutines. Whoever still follows is not woken any more.
func (f *follower) close() {
	f.admin.Lock()
	w := f.watcher
	close(f.stop)
	f.watcher, f.refused, f.polling = nil, true, true
	f.admin.Unlock()
	if w != nil {
		_ = w.Close()
	}
	f.wg.Wait()
}
