//! Pages of a cache and how many sequences use each.

/// The pages of a cache.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Unused pages, the next one last.
    free: Vec<u32>,
    /// How many sequences use each page.
    users: Vec<u32>,
}

impl Pages {
    /// So many unused pages.
    pub fn new(count: usize) -> Pages {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Pages { free: (0..count).rev().collect(), users: vec![0; count as usize] }
    }

    /// An unused page, now with one user.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.users[page as usize] = 1;
        Some(page)
    }

    /// Another user for each of these pages.
    pub fn share(&mut self, pages: &[u32]) {
        for page in pages {
            self.users[*page as usize] += 1;
        }
    }

    /// One user less for each of these pages.
    pub fn release(&mut self, pages: &[u32]) {
        // The first one is the next to be taken, so that a sequence that starts anew gets its old places.
        for page in pages.iter().rev() {
            let users = &mut self.users[*page as usize];
            *users -= 1;
            if *users == 0 {
                self.free.push(*page);
            }
        }
    }

    /// True for a page of several users.
    pub fn is_shared(&self, page: u32) -> bool {
        self.users[page as usize] > 1
    }

    /// Number of unused pages.
    pub fn free(&self) -> usize {
        self.free.len()
    }
}
