//! What has been used, in this process? A bounded table of cells, in shards with a lock each.
//!
//! A request locks the shards of its own cells, in order, and no other: all of its limits are looked at before any is used,
//! so that a refused call has used nothing. A shard that is full makes room by dropping, of some of its cells, the one of
//! whose limit the least is used up; for that key the limit begins anew. So whoever is at their limit does not get out of it
//! by having many other keys counted, or by waiting for somebody who does: the others go first, and one at its limit only
//! where nearly every cell of its shard is. A cell that counts running calls is never dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::policy::budget::meter::{Cell, Exceeded, Left, Meter};
use crate::policy::budget::{CellKey, Charge};
use crate::time::UnixMicros;

/// The cells.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    /// Of one shard.
    cells_max: usize,
    evicted: AtomicU64,
}

/// Cells that share a lock. INVARIANT: `places` says of exactly the keys of `cells` where each lies.
#[derive(Debug, Default)]
struct Shard {
    places: HashMap<CellKey, usize>,
    cells: Vec<(CellKey, Entry)>,
    /// Where the next look for a cell to drop begins.
    hand: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    cell: Cell,
    /// From when on it is as good as none.
    idle_at: UnixMicros,
    /// How much of its limit was used up, in thousandths.
    used_up: u16,
}

/// Which of the charges was too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMuch {
    /// Its place among the charges.
    pub(super) charge: usize,
    /// When there is more.
    pub(super) exceeded: Exceeded,
}

impl Table {
    /// Keeps at most `cells_max` cells, and those of running calls beyond.
    pub(super) fn new(cells_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, cells_max: cells_max.div_ceil(SHARDS), evicted: AtomicU64::new(0) }
    }

    /// Uses what every charge says, or nothing; what is left of each.
    ///
    /// # Errors
    /// [`TooMuch`]: of several, the one that takes longest to come back.
    pub(super) fn spend(&self, charges: &[Charge], now: UnixMicros) -> Result<Vec<Left>, TooMuch> {
        let mut locked = self.lock(charges);
        let mut spent = Vec::with_capacity(charges.len());
        let mut refused: Option<TooMuch> = None;
        for (nth, charge) in charges.iter().enumerate() {
            match charge.limit.meter.spend(locked.cell(charge.key), charge.cost, now) {
                Ok(next) => spent.push(next),
                Err(exceeded) => {
                    let is_worse = refused.is_none_or(|worst| exceeded.retry_after > worst.exceeded.retry_after);
                    refused = if is_worse { Some(TooMuch { charge: nth, exceeded }) } else { refused };
                }
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        let left = charges.iter().zip(spent).map(|(charge, (cell, left))| {
            self.put(&mut locked, charge.key, charge.limit.meter, cell, now);
            left
        });
        Ok(left.collect())
    }

    /// Notes what somebody else has let through: as [`Table::spend`], except that nothing is refused.
    pub(super) fn note(&self, charges: &[Charge], now: UnixMicros) {
        let mut locked = self.lock(charges);
        for charge in charges {
            let (cell, meter) = (locked.cell(charge.key), charge.limit.meter);
            let next = match meter {
                Meter::Concurrency { .. } => {
                    Meter::Concurrency { most: u64::MAX }.spend(cell, charge.cost, now).map(|(next, _left)| next)
                }
                Meter::Quota { .. } => Ok(meter.charge(cell, charge.cost, now)),
                Meter::Rate { .. } => meter.spend(cell, charge.cost, now).map(|(next, _left)| next),
            };
            if let Ok(next) = next {
                self.put(&mut locked, charge.key, meter, next, now);
            }
        }
    }

    /// Uses `amount` that has come; whether nothing was left before.
    pub(super) fn charge(&self, charge: &Charge, amount: u64, now: UnixMicros) -> bool {
        let mut locked = self.lock(std::slice::from_ref(charge));
        let (cell, meter) = (locked.cell(charge.key), charge.limit.meter);
        let was_empty = meter.spend(cell, 0, now).is_err();
        self.put(&mut locked, charge.key, meter, meter.charge(cell, amount, now), now);
        was_empty
    }

    /// A call that was counted as running has ended.
    pub(super) fn release(&self, charge: &Charge, now: UnixMicros) {
        let mut locked = self.lock(std::slice::from_ref(charge));
        let (cell, meter) = (locked.cell(charge.key), charge.limit.meter);
        self.put(&mut locked, charge.key, meter, meter.release(cell, charge.cost), now);
    }

    /// Drops what is without effect; how many cells there are then.
    pub(super) fn forget_idle(&self, now: UnixMicros) -> usize {
        let kept = self.shards.iter().map(|shard| {
            let mut shard = locked(shard);
            shard.forget_idle(now);
            shard.cells.len()
        });
        kept.sum()
    }

    /// Cells that were dropped while they had an effect, since this was last asked.
    pub(super) fn take_evicted(&self) -> u64 {
        self.evicted.swap(0, Ordering::Relaxed)
    }

    fn lock(&self, charges: &[Charge]) -> Locked<'_> {
        let mut places: Vec<usize> = charges.iter().map(|charge| place(charge.key)).collect();
        // Everybody locks in this order, so nobody waits for somebody who waits for them.
        places.sort_unstable();
        places.dedup();
        Locked(places.into_iter().filter_map(|place| Some((place, locked(self.shards.get(place)?)))).collect())
    }

    fn put(&self, locked: &mut Locked<'_>, key: CellKey, meter: Meter, cell: Cell, now: UnixMicros) {
        let Some(shard) = locked.shard(key) else { return };
        let entry = Entry { cell, idle_at: meter.idle_at(cell), used_up: meter.used_up(cell, now) };
        if entry.idle_at <= now {
            shard.remove(key);
            return;
        }
        if shard.cells.len() >= self.cells_max
            && !shard.places.contains_key(&key)
            && let Some(dropped) = shard.drop_least(now)
        {
            self.evicted.fetch_add(u64::from(dropped.idle_at > now), Ordering::Relaxed);
        }
        shard.insert(key, entry);
    }
}

impl Shard {
    fn get(&self, key: CellKey) -> Option<&Entry> {
        self.cells.get(*self.places.get(&key)?).map(|(_key, entry)| entry)
    }

    fn insert(&mut self, key: CellKey, entry: Entry) {
        let place = *self.places.entry(key).or_insert(self.cells.len());
        match self.cells.get_mut(place) {
            Some(known) => known.1 = entry,
            None => self.cells.push((key, entry)),
        }
    }

    fn remove(&mut self, key: CellKey) {
        if let Some(place) = self.places.get(&key).copied() {
            self.remove_at(place);
        }
    }

    /// The last cell takes the place of the one that goes.
    fn remove_at(&mut self, place: usize) -> Option<Entry> {
        let (key, entry) = (place < self.cells.len()).then(|| self.cells.swap_remove(place))?;
        self.places.remove(&key);
        if let Some((moved, _entry)) = self.cells.get(place) {
            self.places.insert(*moved, place);
        }
        Some(entry)
    }

    /// Drops one of [`LOOKED_AT`] cells, which lie evenly over all of them: one without effect if there is one, else that of
    /// whose limit the least is used up, and of several the one that is without effect soonest. None when all of them run.
    fn drop_least(&mut self, now: UnixMicros) -> Option<Entry> {
        let step = self.cells.len().div_ceil(LOOKED_AT).max(1);
        let places = (0..self.cells.len()).step_by(step).map(|place| (self.hand + place) % self.cells.len());
        let may_go = places.filter_map(|place| {
            let entry = self.cells.get(place).map(|(_key, entry)| entry)?;
            let used_up = if entry.idle_at <= now { 0 } else { entry.used_up + 1 };
            (entry.idle_at < UnixMicros(u64::MAX)).then_some((used_up, entry.idle_at, place))
        });
        let (.., least) = may_go.min()?;
        self.hand = (self.hand + 1) % step;
        self.remove_at(least)
    }

    fn forget_idle(&mut self, now: UnixMicros) {
        self.cells.retain(|(_key, entry)| entry.idle_at > now);
        self.places.clear();
        // What a flood has taken is given back.
        if self.cells.capacity() > 4 * self.cells.len().max(CELLS_USUAL) {
            self.cells.shrink_to(2 * CELLS_USUAL);
            self.places.shrink_to(2 * CELLS_USUAL);
        }
        self.places.extend(self.cells.iter().enumerate().map(|(place, (key, _entry))| (*key, place)));
    }
}

/// Shards that are locked, by their place.
struct Locked<'t>(Vec<(usize, MutexGuard<'t, Shard>)>);

impl Locked<'_> {
    fn cell(&self, key: CellKey) -> Cell {
        let shard = self.0.iter().find(|(place, _)| *place == self::place(key)).map(|(_, shard)| shard);
        shard.and_then(|shard| shard.get(key)).map(|entry| entry.cell).unwrap_or_default()
    }

    fn shard(&mut self, key: CellKey) -> Option<&mut Shard> {
        self.0.iter_mut().find(|(place, _)| *place == self::place(key)).map(|(_, shard)| &mut **shard)
    }
}

/// A key is a digest, so any byte of it spreads evenly.
fn place(key: CellKey) -> usize {
    let CellKey([first, ..]) = key;
    usize::from(first) % SHARDS
}

/// No code panics while it holds one of these locks, and each value is whole after every statement.
fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

const SHARDS: usize = 64;

/// Cells that are looked at for one to drop.
const LOOKED_AT: usize = 64;

/// Cells that a shard keeps room for.
const CELLS_USUAL: usize = 256;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::budget::{Budget, Limit, LimitKind};

    const SECOND: u64 = 1_000_000;
    const NOW: UnixMicros = UnixMicros(1_000_000 * SECOND);

    fn charge(key: u128, kind: LimitKind, meter: Meter) -> Charge {
        let limit = Limit { kind, meter };
        let budget = Budget {
            name: "b".into(),
            by: Vec::new(),
            routes: Vec::new(),
            servers: Vec::new(),
            tools: Vec::new(),
            methods: Vec::new(),
            when: None,
            limits: vec![limit],
        };
        Charge { budget: Arc::new(budget), limit, key: CellKey(key.to_le_bytes()), cost: 1 }
    }

    fn calls(key: u128, most: u64) -> Charge {
        charge(key, LimitKind::Calls, Meter::Quota { most, window: 10 * SECOND })
    }

    #[test]
    fn a_refused_call_has_used_nothing_of_any_limit() {
        let table = Table::new(1024);
        let (wide, narrow) = (calls(1, 3), calls(2, 1));
        assert!(table.spend(&[wide.clone(), narrow.clone()], NOW).is_ok());
        for _ in 0..5 {
            let refused = table.spend(&[wide.clone(), narrow.clone()], NOW).unwrap_err();
            assert_eq!((refused.charge, refused.exceeded.retry_after), (1, 10 * SECOND));
        }
        let left = table.spend(std::slice::from_ref(&wide), NOW).unwrap();
        assert_eq!(left.first().unwrap().remaining, 1);
    }

    #[test]
    fn of_several_limits_the_longest_wait_is_told() {
        let table = Table::new(1024);
        let short = charge(1, LimitKind::Rate, Meter::Rate { burst: 1, interval: SECOND });
        let both = [short, calls(2, 1)];
        assert!(table.spend(&both, NOW).is_ok());
        let refused = table.spend(&both, NOW).unwrap_err();
        assert_eq!((refused.charge, refused.exceeded.retry_after), (1, 10 * SECOND));
    }

    #[test]
    fn a_running_call_is_never_dropped_and_other_cells_make_room() {
        let table = Table::new(SHARDS);
        let running = charge(in_one_shard(0), LimitKind::Concurrency, Meter::Concurrency { most: 1 });
        assert!(table.spend(std::slice::from_ref(&running), NOW).is_ok());
        for n in 1..100 {
            assert!(table.spend(&[calls(in_one_shard(n), 1)], NOW).is_ok());
        }
        assert!(table.spend(std::slice::from_ref(&running), NOW).is_err());
        assert!(table.take_evicted() > 0);
        assert!(table.forget_idle(NOW) <= 2, "it is bounded");
        table.release(&running, NOW);
        assert!(table.spend(std::slice::from_ref(&running), NOW).is_ok());
    }

    /// So many in one shard: the first byte is the same.
    fn in_one_shard(n: u128) -> u128 {
        (n << 8) | 7
    }

    fn use_up(table: &Table, charge: &Charge, times: usize) {
        for _ in 0..times {
            assert!(table.spend(std::slice::from_ref(charge), NOW).is_ok());
        }
    }

    /// Whoever is at their limit must not get out of it because others have many keys counted.
    #[test]
    fn a_flood_of_keys_resets_nobody_who_has_used_more_than_it() {
        let table = Table::new(SHARDS * 100);
        // One after the other, so that they lie side by side.
        let at_limit: Vec<Charge> = (0..40).map(|n| calls(in_one_shard(n), 5)).collect();
        let almost: Vec<Charge> = (40..60).map(|n| calls(in_one_shard(n), 5)).collect();
        at_limit.iter().for_each(|charge| use_up(&table, charge, 5));
        almost.iter().for_each(|charge| use_up(&table, charge, 4));
        for n in 1000..11_000 {
            use_up(&table, &calls(in_one_shard(n), 5), 1);
        }
        for charge in &at_limit {
            assert!(table.spend(std::slice::from_ref(charge), NOW).is_err());
        }
        for charge in &almost {
            use_up(&table, charge, 1);
            assert!(table.spend(std::slice::from_ref(charge), NOW).is_err());
        }
        assert_eq!(table.forget_idle(NOW), 100, "and it is bounded");
        assert_eq!(table.take_evicted(), 10_000 - 40);
    }

    /// When there is nothing else that could go, the one goes whose limit is over soonest.
    #[test]
    fn a_flood_of_keys_at_their_limit_is_bounded_too() {
        let table = Table::new(SHARDS * 100);
        for n in 0..5000 {
            use_up(&table, &calls(in_one_shard(n), 1), 1);
        }
        assert_eq!(table.forget_idle(NOW), 100);
    }

    #[test]
    fn what_is_over_goes_before_what_is_not() {
        let table = Table::new(SHARDS * 10);
        let over = charge(in_one_shard(0), LimitKind::Calls, Meter::Quota { most: 1, window: SECOND });
        use_up(&table, &over, 1);
        for n in 1..10 {
            use_up(&table, &calls(in_one_shard(n), 5), 1);
        }
        let later = UnixMicros(NOW.0 + 2 * SECOND);
        assert!(table.spend(&[calls(in_one_shard(10), 5)], later).is_ok());
        assert_eq!(table.take_evicted(), 0, "nobody has lost anything");
        assert_eq!(table.forget_idle(later), 10);
    }

    /// The places of cells move when others go.
    #[test]
    fn every_cell_is_found_wherever_it_lies() {
        let table = Table::new(SHARDS * 200);
        let running = [500, 501].map(|n| {
            let meter = Meter::Concurrency { most: 1 };
            let running = charge(in_one_shard(n), LimitKind::Concurrency, meter);
            use_up(&table, &running, 1);
            running
        });
        for n in 0..100 {
            let window = if n % 3 == 0 { SECOND } else { 10 * SECOND };
            use_up(&table, &charge(in_one_shard(n), LimitKind::Calls, Meter::Quota { most: 2, window }), 1);
        }
        let later = UnixMicros(NOW.0 + 2 * SECOND);
        assert_eq!(table.forget_idle(later), 2 + 66);
        running.iter().for_each(|running| table.release(running, later));
        for n in (0..100).filter(|n| n % 3 != 0) {
            let left = table.spend(&[calls(in_one_shard(n), 2)], later).unwrap();
            assert_eq!(left.first().unwrap().remaining, 0, "{n}");
            assert!(table.spend(&[calls(in_one_shard(n), 2)], later).is_err());
        }
        assert_eq!(table.forget_idle(later), 66);
    }

    #[test]
    fn what_is_without_effect_is_forgotten() {
        let table = Table::new(1024);
        assert!(table.spend(&[calls(1, 1), calls(2, 1)], NOW).is_ok());
        assert_eq!(table.forget_idle(UnixMicros(NOW.0 + 10 * SECOND - 1)), 2);
        assert_eq!(table.forget_idle(UnixMicros(NOW.0 + 10 * SECOND)), 0);
    }

    /// Whatever comes at the same time: no more pass than the limit says, and nobody waits for ever.
    #[test]
    fn many_at_once_do_not_overdraw_it() {
        let table = Arc::new(Table::new(1024));
        let charges = [calls(1, 100), calls(2, 1000), calls(3, 1000)];
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (table, mut charges) = (Arc::clone(&table), charges.clone());
                if thread % 2 == 1 {
                    charges.reverse();
                }
                std::thread::spawn(move || (0..100).filter(|_| table.spend(&charges, NOW).is_ok()).count())
            })
            .collect();
        let through: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(through, 100);
        let left = table.spend(std::slice::from_ref(charges.get(1).unwrap()), NOW).unwrap();
        assert_eq!(left.first().unwrap().remaining, 899);
    }
}
