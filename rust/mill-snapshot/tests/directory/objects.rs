//! A store of objects in memory, whose requests fail on command: before they are done, after that, or by being done later.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use mill_frame::block::SharedBytes;
use mill_snapshot::{Blob, Blobs, Entry, OnlyIf, Pending, Put, Take, Version};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is not done, and fails.
    Fail,
    /// It is done, and its answer is lost.
    Lose,
    /// It fails, and is done when [`Objects::land`] is called.
    Delay,
}

type Late = Box<dyn FnOnce(&mut World) + Send>;

#[derive(Default)]
pub struct World {
    objects: BTreeMap<String, (Vec<u8>, u64)>,
    version: u64,
    requests: u64,
    fates: BTreeMap<u64, Fate>,
    /// From this request on the store does not answer.
    is_down_from: Option<u64>,
    late: Vec<Late>,
}

/// Clones share the objects.
#[derive(Clone, Default)]
pub struct Objects(Arc<Mutex<World>>);

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Objects")
    }
}

impl Objects {
    pub fn set_fate(&self, request: u64, fate: Fate) {
        self.0.lock().unwrap().fates.insert(request, fate);
    }

    pub fn set_down_from(&self, request: Option<u64>) {
        self.0.lock().unwrap().is_down_from = request;
    }

    pub fn requests(&self) -> u64 {
        self.0.lock().unwrap().requests
    }

    /// Lets what was delayed be done now.
    pub fn land(&self) {
        let mut world = self.0.lock().unwrap();
        let late = std::mem::take(&mut world.late);
        late.into_iter().for_each(|late| late(&mut world));
    }

    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.0.lock().unwrap().objects.get_mut(name).unwrap().0);
    }

    pub fn remove(&self, name: &str) {
        self.0.lock().unwrap().objects.remove(name);
    }

    fn request<T>(&self, run: impl FnOnce(&mut World) -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let mut world = self.0.lock().unwrap();
        world.requests += 1;
        let number = world.requests;
        let lost = || io::Error::other("the store did not answer, as the test wants it");
        if world.is_down_from.is_some_and(|from| number >= from) {
            return Err(lost());
        }
        match world.fates.get(&number) {
            None => run(&mut world),
            Some(Fate::Fail) => Err(lost()),
            Some(Fate::Lose) => run(&mut world).and_then(|_| Err(lost())),
            Some(Fate::Delay) => {
                world.late.push(Box::new(move |world| drop(run(world))));
                Err(lost())
            }
        }
    }
}

impl World {
    fn write(&mut self, name: String, bytes: Vec<u8>) -> Version {
        self.version += 1;
        self.objects.insert(name, (bytes, self.version));
        version(self.version)
    }
}

fn version(number: u64) -> Version {
    Version { tag: Some(number.to_string()), number: None }
}

impl Blobs for Objects {
    fn url(&self) -> &str {
        "s3://bucket/place"
    }

    fn read(&self, name: &str) -> io::Result<Option<Blob>> {
        let name = name.to_owned();
        self.request(move |world| Ok(world.objects.get(&name).map(|(bytes, number)| Blob { bytes: bytes.clone(), version: version(*number) })))
    }

    fn put(&self, name: &str, bytes: Vec<u8>, only_if: OnlyIf<'_>) -> io::Result<Put> {
        let (name, wanted) = (name.to_owned(), match only_if {
            OnlyIf::Absent => None,
            OnlyIf::Is(version) => Some(version.clone()),
        });
        self.request(move |world| {
            let found = world.objects.get(&name).map(|(_, number)| version(*number));
            Ok(if found == wanted { Put::Done(world.write(name, bytes)) } else { Put::Refused })
        })
    }

    fn upload(&self, name: &str, bytes: SharedBytes) -> Pending {
        let name = name.to_owned();
        Pending::done(self.request(move |world| Ok(drop(world.write(name, bytes.to_vec())))))
    }

    fn download(&self, name: &str, bytes: u64, mut take: Take) -> Pending {
        let name = name.to_owned();
        let read = self.request(move |world| world.objects.get(&name).map(|(bytes, _)| bytes.clone()).ok_or_else(|| io::ErrorKind::NotFound.into()));
        Pending::done(read.and_then(|found| match found.len() as u64 == bytes {
            true => take(0, &found),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "another size")),
        }))
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        self.request(|world| Ok(world.objects.iter().map(|(name, (bytes, _))| Entry { name: name.clone(), bytes: bytes.len() as u64 }).collect()))
    }

    fn any(&self) -> io::Result<Option<String>> {
        self.request(|world| Ok(world.objects.keys().next().cloned()))
    }

    fn delete(&self, names: &[String]) -> io::Result<()> {
        let names = names.to_vec();
        self.request(move |world| Ok(names.iter().for_each(|name| drop(world.objects.remove(name)))))
    }
}
