package journal

import (
	"cmp"
	"os"
	"slices"
)

const (
	newSuffix = ".new"
	// compactFrom is how large a log is before it is written anew, and
	// compactAt how many times what is in the index it then has.
	compactFrom = 1 << 20
	compactAt   = 4
)

// anew is a copy of what counts in a log.
type anew struct {
	old   *log
	from  int64 // where in it those begin that came later
	log   *log
	index map[string]map[string]place
	live  int64
	err   error
}

// record is one of the index.
type record struct {
	bucket, key string
	place
}

// adopt begins a copy of a log of which little counts, and makes one that is
// ready the log. Commits go on meanwhile. It is called by the goroutine commit,
// the only one to change the index.
func (j *Journal) adopt() {
	select {
	case a := <-j.anew:
		j.anew = nil
		if !j.take(a) { // the old one goes on, and it is tried again
			a.drop()
		}
	default:
	}
	if j.anew != nil || j.log.broken != nil || j.log.end < compactFrom || j.log.end < compactAt*j.live {
		return
	}
	all := j.records(0)
	j.anew = make(chan *anew, 1)
	a, ready := &anew{old: j.log, from: j.log.end, index: map[string]map[string]place{}}, j.anew
	for bucket := range j.index {
		a.index[bucket] = map[string]place{}
	}
	j.copying.Go(func() {
		if a.log, a.err = openLog(j.path+newSuffix, nil); a.err == nil {
			a.err = a.add(all)
		}
		ready <- a
		j.mu.Lock()
		defer j.mu.Unlock()
		j.hurry = true
		j.wake.Signal()
	})
}

// dropCopy drops the copy that is ready when the journal is closed.
func (j *Journal) dropCopy() {
	select {
	case a := <-j.anew:
		a.drop()
	default:
	}
}

func (a *anew) drop() {
	if a.log != nil {
		a.log.f.Close()
		_ = os.Remove(a.log.f.Name())
	}
}

// records returns those of the index that are behind an offset of the log, in
// their order there.
func (j *Journal) records(from int64) (all []record) {
	for bucket, keys := range j.index {
		for key, p := range keys {
			if p.at >= from {
				all = append(all, record{bucket, key, p})
			}
		}
	}
	slices.SortFunc(all, func(a, b record) int { return cmp.Compare(a.at, b.at) })
	return all
}

// add copies records. One that is damaged stays so, to be told of.
func (a *anew) add(all []record) error {
	var batch []Change
	var sums []uint32
	size := 0
	for i, r := range all {
		value, sum, err := a.old.raw(r.place)
		if err != nil {
			return err
		}
		batch, sums, size = append(batch, Change{r.bucket, r.key, value}), append(sums, sum), size+len(value)
		if size < batchSize && i < len(all)-1 {
			continue
		}
		places, err := a.log.append(batch, sums)
		if err != nil {
			return err
		}
		for i, c := range batch {
			a.live += places[i].size() - a.index[c.Bucket][c.Key].size()
			a.index[c.Bucket][c.Key] = places[i]
		}
		batch, sums, size = nil, nil, 0
	}
	return nil
}

// take brings a copy up to date and gives it the log's name; false: it could not be
// made.
func (j *Journal) take(a *anew) bool {
	if a.err != nil || a.add(j.records(a.from)) != nil || a.forget(j.index) != nil {
		return false
	}
	if os.Rename(a.log.f.Name(), j.path) != nil {
		return false
	}
	a.log.broken = syncDir(j.path) // then nobody knows which of the two is there after a crash
	j.data.Lock()
	defer j.data.Unlock()
	j.log, j.index, j.live = a.log, a.index, a.live
	_ = a.old.f.Close() // it was read only
	return true
}

// forget removes from the copy what the index does not have any more.
func (a *anew) forget(index map[string]map[string]place) error {
	var gone []Change
	for bucket, keys := range a.index {
		for key, p := range keys {
			if _, ok := index[bucket][key]; !ok {
				gone = append(gone, Change{Bucket: bucket, Key: key})
				delete(keys, key)
				a.live -= p.size()
			}
		}
	}
	if len(gone) == 0 {
		return nil
	}
	_, err := a.log.append(gone, nil)
	return err
}
