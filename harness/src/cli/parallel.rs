//! Processes many items in parallel, on all cores.

use std::{
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
};

use lockproof_model::error::{Error, Result};

/// Runs `work` on each item and returns the results in order. If `work` panics, the result of that item is
/// an undecided error; the others are not affected.
pub(super) fn map<T: Sync, R: Send>(
    items: &[T],
    name: impl Fn(&T) -> String + Sync,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    let one = |item: &T| {
        catch_unwind(AssertUnwindSafe(|| work(item))).unwrap_or_else(|panic| Err(broken(&name(item), &*panic)))
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, one(item)));
        }
    };
    let mut all: Vec<(usize, Result<R>)> = if cores < 2 {
        take()
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    };
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, result)| result).collect()
}

fn broken(name: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::undecided("lockproof failed to audit this file: this is a bug in lockproof")
        .at(name)
        .detail(said.unwrap_or("it panicked"))
        .fix("please report it with the file; the other files were audited")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockproof_model::error::ErrorKind;

    #[test]
    fn a_panic_takes_one_result_and_leaves_every_other_at_its_own_item() {
        let items: Vec<usize> = (0..40).collect();
        let work = |n: &usize| if *n % 7 == 3 { panic!("injected at {n}") } else { Ok(*n) };
        let results = map(&items, |n| format!("file {n}"), work);
        assert_eq!(results.len(), items.len());
        for (n, result) in results.iter().enumerate() {
            match result {
                Ok(own) => assert_eq!(*own, n),
                Err(error) => {
                    assert_eq!((n % 7, error.kind()), (3, ErrorKind::Undecided));
                    let text = error.to_string();
                    assert!(text.contains(&format!("file {n}")) && text.contains("injected"), "{text}");
                }
            }
        }
    }

    #[test]
    fn nothing_to_do_has_no_results() {
        assert!(map(&[], |(): &()| String::new(), |()| Ok(())).is_empty());
    }
}
